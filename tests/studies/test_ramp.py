"""Rising and falling load: on a server whose waits follow Lindley's recursion, and on one that thrashes."""

import json

import numpy as np
import pytest

from rota.cli.main import run as command
from rota.cost.engine import EngineSpec
from rota.cost.tables import StepTables
from rota.errors import InputError
from rota.studies.ramp import Step, load_ramp, stable_rate, up_and_down
from rota.workload.agents import Agent, Tool, agents
from rota.workload.lengths import Spread
from rota.workload.transform import ramp, ramp_step
from tests.studies.servers import STEP, OneAtATime, SteadyServer, lindley, random_trace, steady_trace


def test_gaps_are_stretched_to_the_rate_of_their_step():
    trace = ramp(steady_trace(90, rate=3.0), [1.0, 2.0, 4.0])
    np.testing.assert_allclose(np.diff(trace.arrival), np.repeat([1.0, 0.5, 0.25], 30)[1:])
    programs = ramp(agents(40, 0.5, seed=1), [0.1, 1.0])
    begin = programs.arrival[programs.after < 0]
    own = np.diff(agents(40, 0.5, seed=1).arrival[programs.after < 0])
    np.testing.assert_allclose(np.diff(begin)[:19] / own[:19], 10 * (np.diff(begin)[20:] / own[20:]).mean())
    assert programs.delay.tolist() == agents(40, 0.5, seed=1).delay.tolist()


def test_both_ways_are_what_the_recursion_says():
    trace, rates = random_trace(3, 100), [0.5, 1.5, 3.0]
    steps = load_ramp(trace, SteadyServer(), [OneAtATime()], rates)
    own = ramp(trace, [0.5, 1.5, 3.0, 1.5, 0.5])
    took = lindley(own) + STEP * own.output
    means = [took[ramp_step(100, 5) == i].mean() for i in range(5)]
    assert [step.rate for step in steps] == rates
    np.testing.assert_allclose([step.rising for step in steps], means[:3])
    np.testing.assert_allclose([step.falling for step in steps], means[:1:-1])


def test_the_stable_rate_ends_where_a_step_is_not_carried_or_does_not_recover():
    def stable(*pairs):
        return stable_rate([Step("p", float(i + 1), up, down) for i, (up, down) in enumerate(pairs)])

    assert stable((1, 1), (1.2, 1.7), (1.5, 1.5)) == 3
    assert stable((1, 1), (1.2, 1.9), (1.5, 1.5)) == 1
    assert stable((1, 1), (1.2, 1.2), (2.1, 2.1)) == 2
    assert np.isnan(stable((1, 9), (1, 1)))


def test_programs_that_lose_their_history_do_not_come_back():
    """A prompt token costs so much that an engine which computes histories again carries less than one that keeps them."""
    kind = Agent(Spread.fixed(8), Spread.fixed(160), Spread.fixed(16), Spread.fixed(16), (Tool("t", 1, Spread.fixed(0.3)),))
    tables = StepTables(layer=np.array([0.0, 1e-3]), head=np.zeros(2), n_layers=1, cpu=2e-3)

    class Server:
        def engine(self, max_step_tokens: int) -> EngineSpec:
            return EngineSpec(tables, blocks=120, block_size=16, max_len=1024)

    steps = load_ramp(agents(140, 1.0, kind, seed=2), Server(), ["vllm-v1", "pin-forever"], [0.2, 0.8, 2.0])
    lru, held = steps[:3], steps[3:]
    assert lru[0].rising == pytest.approx(held[0].rising, rel=0.05)
    # without retention, what was fine on the way up is not on the way down
    assert lru[0].falling > 10 * lru[0].rising
    assert not lru[0].recovered
    assert held[0].falling == pytest.approx(held[0].rising, rel=0.1)


def test_wrong_rates():
    assert up_and_down([3, 1, 2]) == [1, 2, 3, 2, 1]
    for rates, message in (([1.0], "two different"), ([1.0, 1.0], "two different"), ([0.0, 1.0], "positive number")):
        with pytest.raises(InputError, match=message):
            load_ramp(steady_trace(50), SteadyServer(), [OneAtATime()], rates)
    with pytest.raises(InputError, match="too few"):
        load_ramp(steady_trace(2), SteadyServer(), [OneAtATime()], [1.0, 2.0])
    with pytest.raises(InputError, match="at once"):
        ramp(steady_trace(4).with_columns(arrival=np.zeros(4)), [1.0, 2.0])


def test_the_verb_prints_rows_and_names_what_is_wrong(capsys):
    given = ["ramp", "poisson:n=60,rate=1", "-m", "llama-3-8b", "-d", "a100-80g", "-p", "vllm-v1", "-j", "1"]
    assert command([*given, "--rates", "1,2,4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [step["rate"] for step in found["steps"]] == [1, 2, 4]
    assert found["stable"] == {"vllm-v1": 4}
    assert command([*given, "--rates", "1,x"]) == 2
    assert command([*given, "--rates", "1,2", "--rate", "3"]) == 2
    assert "leave out --rate" in capsys.readouterr().err
