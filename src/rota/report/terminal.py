"""A comparison as a table and a few sentences on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from rota.report.explain import explain, price, verdict
from rota.results.bands import Band
from rota.results.comparison import JOB_HEADLINES, Comparison
from rota.results.metrics import describe, shown

#: Columns in order of importance; those that do not fit the terminal are left out, as are those that say nothing.
COLUMNS = (
    "jct_mean",
    "jct_p95",
    "missed_turns",
    "goodput",
    "ttft_p50",
    "ttft_p99",
    "tbt_p99",
    "e2e_p50",
    "output_throughput",
    "slo_attainment",
    "preemptions",
    "jain",
    "service_gap",
    "prefix_hit_rate",
    "usd_per_million_tokens",
    "joule_per_token",
    "tbt_p50",
    "expert_bytes",
    "kv_mean",
)
JOB_COLUMNS = (*JOB_HEADLINES, "preemptions", "decode_batch_mean", "shared_reads", "joule_per_token")


def print_comparison(comparison: Comparison, console: Console | None = None) -> None:
    """Print table, verdict, price and reasons."""
    console = console or Console()
    console.print(comparison_table(comparison, console.width))
    console.print()
    console.print(f"[bold]{escape(verdict(comparison))}[/bold]", highlight=False)
    for line in (price(comparison), *explain(comparison)):
        if line:
            console.print(Text(line))


def comparison_table(comparison: Comparison, width: int = 100) -> Table:
    """One row per policy. ``*`` marks the best of a column and ``=`` what ties with it; below a headline figure stands its band.

    Parameters
    ----------
    comparison : Comparison
    width : int
        Characters available; the least important columns are dropped to fit.
    """
    winners, _ = comparison.winners()
    names = [_two_lines(label) for label in comparison.labels]
    left = width - max(len("policy"), *(len(line) for name in names for line in name.split("\n"))) - 2
    columns: list[tuple[str, list[str]]] = []
    for metric in useful_columns(comparison):
        cells = [_cell(comparison, label, metric) for label in comparison.labels]
        needed = max(len(line) for cell in [*cells, _header(metric)] for line in cell.split("\n")) + 2
        if needed > left:
            break
        columns.append((metric, cells))
        left -= needed
    table = Table(box=None, pad_edge=False, padding=(0, 1), caption=_caption(comparison), caption_justify="left")
    table.add_column("policy", no_wrap=True, vertical="top")
    for metric, _ in columns:
        table.add_column(_header(metric), justify="right", no_wrap=True)
    for row, label in enumerate(comparison.labels):
        cells_of_row = [_dimmed(cells[row]) for _, cells in columns]
        table.add_row(Text(names[row]), *cells_of_row, style="bold green" if label in winners else "")
    return table


def useful_columns(comparison: Comparison) -> list[str]:
    """`COLUMNS`, or `JOB_COLUMNS`, that have a value for some policy and are not 0 for all."""
    columns = JOB_COLUMNS if comparison.offline else COLUMNS
    values = {metric: [comparison.mid(label, metric) for label in comparison.labels] for metric in columns}
    return [metric for metric, row in values.items() if any(value == value and value != 0 for value in row)]


def band_text(metric: str, known: Band) -> str:
    """The ends of a band in reading units, ``""`` where there is none or it is too narrow to show."""
    low, high = (shown(metric, end, unit=False) for end in (known.low, known.high))
    return "" if known.n < 2 or low == high else f"{low}–{high}"


def _cell(comparison: Comparison, label: str, metric: str) -> str:
    ahead = comparison.best(metric) if describe(metric).better else []
    mark = " "
    if len(comparison.labels) > 1 and label in ahead:
        mark = "*" if label == ahead[0] else "="
    text = shown(metric, comparison.mid(label, metric), unit=False) + mark
    band = band_text(metric, comparison.bands[label][metric]) if metric in comparison.headlines else ""
    return f"{text}\n{band} " if band else text


def _two_lines(label: str) -> str:
    """A long label broken after the policy's name, for rows have two lines anyway."""
    return label.replace(":", ":\n  ", 1) if len(label) > 16 else label


def _dimmed(cell: str) -> Text:
    first, _, second = cell.partition("\n")
    return Text.assemble(first, ("\n" + second, "not bold dim default")) if second else Text(first)


def _header(metric: str) -> str:
    known = describe(metric)
    label = known.label.replace("cost / million tokens", "cost/Mtok").replace("energy / token", "energy/tok")
    return f"{label} \n{known.unit} "


def _caption(comparison: Comparison) -> str:
    given = "" if comparison.slo_given else " (implied; set your own with --slo)"
    lines = [] if comparison.offline else [f"SLO: {comparison.slo}{given}"]
    lines.append("* best, = tie with it" + _band_note(comparison.replications))
    return escape("\n".join(lines))


def _band_note(replications: int) -> str:
    if replications < 2:
        return "; one replication: no bands, differences under 2% count as ties"
    return f"; below: 5-95% band over {replications} replications"
