import copy

import pytest

from rota.report.explain import explain, phrase, price, spoken, verdict
from rota.results.bands import versus
from rota.results.comparison import Comparison
from rota.results.slo import SLO
from tests.results.fifo import fifo_run


def test_verdict_names_winner_runner_up_and_figures(comparison):
    text = verdict(comparison)
    assert text.startswith("steady and twin tie for best: ")
    assert "higher goodput than stalls <b>, the next best" in text
    assert "5-95% band" in text


def test_why_cites_the_measured_stall(comparison):
    [line] = explain(comparison)
    # nine gaps of 20 ms for one of 420 ms: 70% of the time is in long gaps
    assert line.startswith("Against stalls <b>: its requests spent 7")
    assert "in token gaps over 100 ms (steady 0%)" in line


def test_the_winner_pays_nothing_when_it_is_nowhere_worse(comparison):
    assert price(comparison) == ""


def test_the_price_is_named():
    slow = [fifo_run(100, seed=s, rate=0.1, prefill=1e-3) for s in range(4)]
    jerky = [fifo_run(100, seed=s, rate=0.1, stall=0.3) for s in range(4)]
    found = Comparison.of({"slow": slow, "jerky": jerky}, SLO.parse("e2e=100"))
    assert verdict(found).startswith("slow is best: ")
    assert "lower P99 TBT than jerky" in verdict(found)
    assert verdict(found).endswith("at equal goodput.")
    assert "higher P50 TTFT than jerky" in price(found)


def test_identical_policies_are_called_a_tie():
    runs = [fifo_run(60, seed=s) for s in range(3)]
    found = Comparison.of({"a": runs, "b": copy.deepcopy(runs)})
    assert verdict(found).startswith("a and b tie: no difference exceeds its band")
    assert explain(found) == []


def test_one_policy_alone_gets_its_figures():
    text = verdict(Comparison.of({"alone": [fifo_run(60)]}))
    assert text.startswith("alone: goodput ")
    assert "best" not in text


def test_an_objective_on_percentiles_is_said_to_be_kept():
    runs = {"jerky": [fifo_run(60, rate=0.1, stall=0.3)], "steady": [fifo_run(60, rate=0.1)]}
    text = verdict(Comparison.of(runs, SLO.parse("p99 tbt=0.1")))
    assert text == "steady is best: it keeps the objective (p99 tbt=0.1); no other policy does."


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"preemptions": 1, "recomputed": 500}, "it preempted 80 times and computed 40,000 tokens again (good 0 times)"),
        ({"expert_bytes": 5e12}, "it read 5.00 TB of expert weights, good 2.00 TB"),
    ],
)
def test_other_reasons_come_from_their_columns(change, expected):
    good, bad = fifo_run(80, rate=0.1), fifo_run(80, rate=0.1, pace=0.04)
    good.totals["expert_bytes"] = 2e12
    bad.totals["expert_bytes"] = change.get("expert_bytes", 2e12)
    bad.preemptions[:] = change.get("preemptions", 0)
    bad.recomputed[:] = change.get("recomputed", 0)
    found = Comparison.of({"bad": [bad], "good": [good]}, SLO.parse("tbt=0.03"))
    assert any(expected in line for line in explain(found))


def test_prefix_hits_of_the_winner_are_a_reason():
    good, bad = fifo_run(80, rate=0.1), fifo_run(80, rate=0.1, pace=0.04)
    good.cached[:] = good.prompt // 2
    assert "reused 50% of the prompt tokens" in explain(Comparison.of({"bad": [bad], "good": [good]}, SLO.parse("tbt=0.03")))[0]


@pytest.mark.parametrize(
    ("a", "b", "text"),
    [
        (3.0, 1.0, "3.0x higher P50 TTFT"),
        (1.0, 3.1, "3.1x lower P50 TTFT"),
        (1.06, 1.0, "6% higher P50 TTFT"),
        (1.0, 1.01, "equal P50 TTFT"),
    ],
)
def test_ratios_in_words(a, b, text):
    assert phrase(versus([{"ttft_p50": a}], [{"ttft_p50": b}], "ttft_p50")) == text


def test_objectives_in_words():
    assert spoken(SLO.parse("ttft=2,tbt=0.1")) == "TTFT up to 2 s, largest token gap up to 100 ms"
    assert "P99 TBT up to 100 ms" in spoken(SLO.parse("p99 tbt=0.1"))
