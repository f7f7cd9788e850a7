"""The composition study: its arithmetic on stated scores, its loads, and what it shows."""

import json

import numpy as np
import pytest

from rota.cli.main import run
from rota.cost.deployment import Deployment
from rota.errors import InputError
from rota.mechanisms.simulator import simulate
from rota.policies.registry import parse_policy
from rota.report.composition import page, verdict, worth
from rota.results.slo import SLO
from rota.studies.composition import DECISIONS, REFERENCE, Choice, carried, choices, composition, declared
from rota.workload import load_trace
from rota.workload.trace import Trace
from rota.workload.transform import faster, independent


@pytest.fixture(scope="module")
def here() -> Deployment:
    return Deployment("llama-3.1-8b", "a100-40g", max_model_len=16384)


@pytest.fixture(scope="module")
def found(here):
    return composition({"azure-conv": lambda seed: load_trace("azure-conv", limit=150, seed=seed)}, here, seeds=2, slo=SLO.parse("ttft=1,tbt=0.1"))


def test_every_combination_runs_on_the_same_requests(found):
    one = found["azure-conv"]
    assert len(one.choices) == len(set(one.choices)) == np.prod([len(one.options(d)) for d in DECISIONS])
    arrivals = {reps[0].arrival.tobytes() for reps in one.comparison.runs.values()}
    assert len(arrivals) == 1
    assert one.best[0] == max(one.choices, key=one.score)


def test_tenants_and_programs_bring_decisions_of_their_own():
    plain = choices(load_trace("azure-conv", limit=20))
    assert {c.order for c in plain} == {"fcfs", "shortest-prompt"}
    fair = choices(load_trace("tenants:seconds=30"))
    assert {c.order for c in fair} - {c.order for c in plain} == {"vtc"}
    agents = choices(load_trace("swe-agents", limit=60))
    assert "program" in {c.order for c in agents}
    assert {"ttl", "until-pressure"} < {c.retention for c in agents}
    for choice in {*plain, *fair, *agents}:
        assert parse_policy(choice.policy).name == "composed"


def test_an_effect_is_the_difference_that_one_decision_makes(found):
    one = found["azure-conv"]
    for effect in one.effects():
        pairs = [(c, c._replace(**{effect.decision: effect.against})) for c in one.choices if getattr(c, effect.decision) == effect.option]
        points = [
            100 * np.mean([a["slo_attainment"] - b["slo_attainment"] for a, b in zip(one.comparison.summaries[x.policy],
                                                                                      one.comparison.summaries[y.policy], strict=True)])
            for x, y in pairs
        ]  # fmt: skip
        assert effect.contexts == len(pairs)
        assert (effect.low, effect.high) == (pytest.approx(min(points)), pytest.approx(max(points)))
        assert effect.mean == pytest.approx(np.mean(points))
        assert effect.better + effect.worse <= effect.contexts
        assert worth(effect).count(effect.option) == 1


def test_the_load_is_a_share_of_what_the_engine_carries(here):
    trace = load_trace("azure-conv", limit=400, seed=1)
    most = carried(trace, here)
    policy = parse_policy(REFERENCE)
    engine = here.engine(policy.max_step_tokens)

    def queue(load):
        free = independent(trace)
        run = simulate(faster(trace, load * most * (free[-1] - free[0]) / len(trace)), policy, engine)
        return np.median(run.first_scheduled - run.arrival)

    assert queue(0.5) < 1.0 < queue(4.0)


def test_limits_are_declared_as_clients_would():
    trace = load_trace("azure-conv", limit=300)
    limit = declared(trace).max_new
    assert set(limit.tolist()) == {1 << (int(trace.output.max()) - 1).bit_length()}
    own = trace.with_columns(max_new=trace.output + 3)
    assert declared(own) is own


def test_loads_that_cannot_be_set_are_refused(here):
    with pytest.raises(InputError, match="positive share"):
        composition({"a": load_trace("azure-conv", limit=50)}, here, load=0)
    at_once = Trace(arrival=np.zeros(60), prompt=np.full(60, 100), output=np.full(60, 10), name="burst")
    with pytest.raises(InputError, match="arrive at once"):
        composition({"burst": at_once}, here)
    with pytest.raises(InputError, match="too few requests"):
        carried(load_trace("azure-conv", limit=2), here)


def test_the_page_and_the_verdict_name_the_best(found):
    text = page(found, "rota compose azure-conv")
    one = found["azure-conv"]
    assert one.best[0].batching in verdict("azure-conv", one)
    assert text.count("★ ") == 1 + 1  # in the map and in the legend
    assert text.count("<td style") == len(one.choices)
    assert "rota compose azure-conv" in text


def test_the_verb_prints_and_writes(tmp_path, capsys):
    html = tmp_path / "map.html"
    options = ["--limit", "60", "--seeds", "1", "--max-model-len", "16384", "--jobs", "1"]
    assert run(["compose", "azure-conv", *options, "--html", str(html), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)["azure-conv"]
    assert len(data["rows"]) == len(choices(load_trace("azure-conv", limit=60)))
    assert html.read_text().startswith("<!doctype html>")
    assert run(["compose", "azure-conv", *options]) == 0
    assert "is best" in " ".join(capsys.readouterr().out.split())
    assert run(["compose", "azure-conv", "azure-conv"]) == 2
    assert "twice" in capsys.readouterr().err
    assert Choice("vllm-v1", "fcfs", "aggressive", "none").policy.startswith("composed:")
