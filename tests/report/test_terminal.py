import io

import pytest
from rich.console import Console

from rota.report.progress import ProgressBars
from rota.report.terminal import print_comparison
from rota.results.metrics import number, shown


def printed(comparison, width):
    stream = io.StringIO()
    print_comparison(comparison, Console(file=stream, width=width))
    return stream.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_the_table_fits_the_terminal(comparison, width):
    text = printed(comparison, width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert "goodput" in text
    assert "…" not in text


def test_wider_terminals_show_more_columns(comparison):
    assert "cost/Mtok" in printed(comparison, 200)
    assert "cost/Mtok" not in printed(comparison, 60)


def test_best_ties_and_bands_are_marked(comparison):
    lines = printed(comparison, 100).splitlines()
    row = {line.split()[0]: i for i, line in enumerate(lines[:10]) if line[:6] in ("steady", "twin  ", "stalls")}
    assert "*" in lines[row["steady"]]
    assert "=" in lines[row["twin"]]
    assert "=" not in lines[row["stalls"]].split()[2]
    assert "–" in lines[row["steady"] + 1]
    assert "5-95% band over 4 replications" in "".join(lines)


def test_labels_are_not_markup(comparison):
    assert "stalls <b>" in printed(comparison, 100)


def test_columns_that_say_nothing_are_left_out(comparison):
    assert "preemptions" not in printed(comparison, 200)
    assert "prefix hits" not in printed(comparison, 200)


FIGURES = {
    0: "0", 1234.5: "1,234", 12.345: "12.3", 0.12345: "0.123", 1.0: "1.00", 99.96: "100", 9.999: "10.0", 999.6: "1,000",
    1.2e-5: "1.2e-05", -3.14159: "-3.14", float("inf"): "inf", float("nan"): "-",
}  # fmt: skip


@pytest.mark.parametrize(("value", "text"), FIGURES.items())
def test_figures_for_people(value, text):
    assert number(value) == text


def test_units_for_people():
    assert shown("ttft_p50", 0.1234) == "123 ms"
    assert shown("ttft_p50", 12.34) == "12.3 s"
    assert shown("ttft_p50", 12.34, unit=False) == "12,340"
    assert shown("kv_mean", 0.5) == "50.0 %"
    assert shown("energy", float("nan")) == "-"


def test_progress_is_silent_without_a_terminal(capfd):
    with ProgressBars() as bars:
        bars.task("run")(1, 2)
    with ProgressBars(quiet=True) as bars:
        bars.task("run")(1, 2)
    assert capfd.readouterr() == ("", "")


def test_progress_shows_what_is_done():
    stream = io.StringIO()
    with ProgressBars(console=Console(file=stream, force_terminal=True, width=80)) as bars:
        bars.task("sarathi")(30, 40)
    assert "sarathi" in stream.getvalue()
    assert "30/40" in stream.getvalue()
