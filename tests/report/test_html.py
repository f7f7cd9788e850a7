import json
from html.parser import HTMLParser

import pytest

from rota.errors import InputError
from rota.report.html import page, script_json, write_html
from rota.results.comparison import Comparison
from tests.results.fifo import fifo_run

VOID = {"meta", "br", "wbr", "link", "img", "input", "hr"}


class Outline(HTMLParser):
    """Checks that tags nest, and collects text and attributes."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.ids, self.links, self.text, self.data = [], [], [], [], ""

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag not in VOID:
            self.open.append((tag, attributes))
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [v for k, v in attrs if k in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        tag, attributes = self.open[-1] if self.open else ("", {})
        if attributes.get("id") == "report-data":
            self.data += data
        elif tag not in ("script", "style"):
            self.text.append(data)


@pytest.fixture(scope="module")
def outline(comparison):
    parser = Outline()
    parser.feed(page(comparison))
    parser.close()
    assert parser.open == []
    return parser


def test_ids_are_unique_and_every_chart_has_its_place(outline):
    assert len(outline.ids) == len(set(outline.ids))
    charts = json.loads(outline.data)["figures"]
    assert {chart["id"] for chart in charts} <= set(outline.ids)


def test_nothing_is_loaded_from_elsewhere(outline):
    assert outline.links == []


def test_text_of_users_is_shown_and_not_obeyed(outline, comparison):
    text = " ".join(outline.text)
    assert "closed </script><script>alert(1)</script>" in text
    assert "stalls <b>" in text
    assert "rota compare 'a&b.csv'" in text
    assert json.loads(outline.data)["policies"] == comparison.labels


def test_answer_grounds_and_conditions_are_on_the_page(outline):
    text = " ".join(outline.text)
    for part in ("steady and twin tie for best", "Why", "Headline figures", "Conditions", "linear: 0.05", "seed", "150 requests"):
        assert part in text


def test_plotly_is_inside_exactly_once(comparison):
    text = page(comparison)
    assert text.count("plotly.js v") == 1
    assert len(text) < 7_000_000


def test_json_cannot_leave_its_script():
    value = {"a": "</script>\u2028<!--", "b": [1.5, None]}
    assert "<" not in script_json(value)
    assert json.loads(script_json(value)) == value
    with pytest.raises(ValueError, match="not JSON compliant"):
        script_json(float("nan"))


def test_one_run_of_one_policy_makes_a_page(tmp_path):
    write_html(tmp_path / "one.html", Comparison.of({"alone": [fifo_run(20)]}))
    assert "One replication" in (tmp_path / "one.html").read_text()


def test_a_run_in_which_nothing_finished_makes_a_page():
    run = fifo_run(5)
    for column in (run.first_scheduled, run.first_token, run.finish):
        column[:] = float("nan")
    run.tbt_histogram[:] = 0
    run.rejected[:] = True
    assert "alone" in page(Comparison.of({"alone": [run], "other": [run]}))


def test_unwritable_path_is_one_clear_line(tmp_path, comparison):
    with pytest.raises(InputError, match="does not exist"):
        write_html(tmp_path / "no" / "report.html", comparison)
