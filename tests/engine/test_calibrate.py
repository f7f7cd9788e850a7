"""Calibration against a runner whose costs are known: what was put in must come out."""

import math

import numpy as np
import pytest

from rota.cost.measured import Measured, read_costs
from rota.cost.model import CostModel
from rota.cost.step_samples import SampleFile, StepSample
from rota.cost.steps import fit_steps, predict
from rota.cost.tables import StepTables
from rota.errors import InputError
from rota.mechanisms.engine import BusyClock, Choice, Engine, ModelClock
from rota.mechanisms.engine import calibrate as module
from rota.mechanisms.engine.calibrate import busy_clock, measure, split
from rota.mechanisms.engine.drive import Drive, check_lengths
from rota.mechanisms.engine.log import LogFile, read_log
from rota.mechanisms.engine.step_times import samples_of
from rota.mechanisms.engine.sweep import Sweep
from rota.mechanisms.simulator import simulate
from rota.policies.registry import parse_policy
from rota.studies.fidelity import cells, ranking
from rota.workload.trace import Trace

TOKENS = np.arange(2049.0)
TABLES = StepTables(
    layer=np.where(TOKENS > 0, 4e-4 + 2e-5 * np.minimum(TOKENS, 64) + 5e-5 * np.maximum(0, TOKENS - 64), 0.0),
    head=np.where(TOKENS[:300] > 0, 3e-4 + 1e-5 * TOKENS[:300], 0.0),
    n_layers=4, prefill_floor=1e-4, prefill_flop_s=2e-8, prefill_byte_s=5e-7, decode_floor=5e-5, decode_byte_s=2e-7, cpu=6e-4, cpu_per_seq=3e-5,
)  # fmt: skip


class Scripted:
    """A runner, and the time: a step takes what `TABLES` say, and now and then several times as long if disturbed."""

    n_layers, vocab, max_len, end_tokens = 4, 1000, 512, frozenset()

    def __init__(self, disturbed=0.0, times=5.0, stop_after=math.inf):
        self.time, self.runs = 0.0, 0
        self._model, self._disturbed, self._times, self._stop = ModelClock(TABLES), disturbed, times, stop_after
        self._draw = np.random.default_rng(5)

    def allocate(self, blocks, block_size):
        pass

    def forget(self, seq):
        pass

    def run(self, rows, tables):
        if self.runs >= self._stop:
            raise KeyboardInterrupt
        self.runs += 1
        before = self._model.now()
        self._model.spend(rows, ())
        self.time += (self._model.now() - before) * (self._times if self._draw.random() < self._disturbed else 1.0)
        return [Choice(1) for row in rows if row.emits]

    def now(self):
        return self.time


class Slow:
    """A policy whose planning takes time: so much a step, and so much for every sequence held."""

    def __init__(self, policy, runner):
        self._policy, self._runner = policy, runner

    def __deepcopy__(self, memo):
        return self

    def __getattr__(self, name):
        return getattr(self._policy, name)

    def plan(self, view):
        plan = self._policy.plan(view)
        self._runner.time += 2e-4 + 1e-5 * (view.n_decode if plan.decode else 0) + 1e-5 * len(plan.work)
        return plan


def calibrated(runner, monkeypatch, path=None, policy=None, rounds=3):
    """An engine measured on the runner's own time."""
    monkeypatch.setitem(module.CLOCKS, "wall", runner.now)
    log = []
    engine = Engine(runner, policy or parse_policy("sarathi"), blocks=600, block_size=16, clock=BusyClock(runner.now), log=log, compress=False)
    with SampleFile(path, {"what": "test"}) as kept:
        measure(engine, log, kept, rounds=rounds, most_tokens=256)
    return kept


def steps():
    """Steps as serving makes them, none of them of a grid."""
    draw = np.random.default_rng(11)
    for _ in range(60):
        n = int(draw.integers(0, 40))
        chunks = tuple((int(draw.integers(0, 200)), int(draw.integers(1, 200))) for _ in range(draw.integers(0 if n else 1, 3)))
        yield n, int(n * draw.integers(5, 400)), chunks


def off(tables):
    """Largest relative error of step times under `tables`."""
    mine, true = CostModel(tables), CostModel(TABLES)
    return max(abs(mine.step_seconds(n, c, p, len(p)) / true.step_seconds(n, c, p, len(p)) - 1) for n, c, p in steps())


def test_a_sweep_recovers_what_steps_cost(monkeypatch):
    kept = calibrated(Scripted(), monkeypatch)
    found = fit_steps(kept.fitted, kept.held_out, 4)
    assert off(found.tables()) < 0.03  # a knot of the truth lies between two of the fit's
    assert {check.kind for check in found.checks} == {"prefill", "decode", "mixed", "layers", "all"}
    assert all(check.error < 0.01 and check.steps > 5 for check in found.checks)


def test_single_disturbed_steps_do_no_harm(monkeypatch):
    kept = calibrated(Scripted(disturbed=0.08), monkeypatch, rounds=5)
    assert off(fit_steps(kept.fitted, kept.held_out, 4).tables()) < 0.04


def test_costs_are_means_where_steps_vary(monkeypatch):
    kept = calibrated(Scripted(disturbed=0.3, times=1.6), monkeypatch, rounds=5)
    mine, true = CostModel(fit_steps(kept.fitted, kept.held_out, 4).tables()), CostModel(TABLES)
    ratios = [mine.step_seconds(n, c, p, len(p)) / true.step_seconds(n, c, p, len(p)) for n, c, p in steps()]
    assert np.mean(ratios) == pytest.approx(1 + 0.3 * 0.6, abs=0.03)


def test_what_is_served_is_measured_all_the_time(monkeypatch):
    usual = Scripted()
    calibrated(usual, monkeypatch)

    class Slowing(Scripted):
        def run(self, rows, tables):
            before, found = self.time, super().run(rows, tables)
            if self.runs > usual.runs / 2:
                self.time += 0.5 * (self.time - before)
            return found

    kept = calibrated(Slowing(), monkeypatch)
    true = fit_steps(calibrated(Scripted(), monkeypatch).fitted, [], 4)
    served = [sample.seconds / predict(true, sample) for sample in kept.fitted if not math.isnan(sample.around)]
    assert 0.2 < np.mean(np.array(served) > 1.25) < 0.8


def test_planning_and_bookkeeping_are_part_of_a_step(monkeypatch):
    runner = Scripted()
    kept = calibrated(runner, monkeypatch, policy=Slow(parse_policy("sarathi"), runner))
    mine, true = CostModel(fit_steps(kept.fitted, kept.held_out, 4).tables()), CostModel(TABLES)
    for n, context, chunks in steps():
        beside = 2e-4 + 1e-5 * (n + len(chunks))
        want = true.step_seconds(n, context, chunks, len(chunks)) + beside
        assert mine.step_seconds(n, context, chunks, len(chunks)) == pytest.approx(want, rel=0.03)


def test_a_served_log_gives_the_same_costs(tmp_path):
    runner = Scripted()
    with LogFile(tmp_path / "steps.jsonl") as log:
        engine = Engine(runner, parse_policy("sarathi:max_num_batched_tokens=128"), blocks=600, clock=BusyClock(runner.now), log=log)
        drive(engine, mixed(400, rate=25.0))
    samples = samples_of(read_log(tmp_path / "steps.jsonl"))
    fitted, held_out = split(samples, 0)
    assert len(samples) == runner.runs and 0.2 < len(held_out) / len(samples) < 0.4
    found = fit_steps(fitted, held_out, 4)
    errors = [abs(predict(found, s) / s.seconds - 1) for s in samples]
    assert np.mean(errors) < 0.01 and np.quantile(errors, 0.99) < 0.02
    assert {check.kind: check.error < 0.01 for check in found.checks if check.steps > 20} == {"decode": True, "mixed": True, "all": True}


def test_a_log_cut_off_in_a_line_is_read_up_to_there(tmp_path):
    path = tmp_path / "steps.jsonl"
    runner = Scripted()
    with LogFile(path) as log:
        drive(Engine(runner, parse_policy("sarathi"), blocks=600, clock=BusyClock(runner.now), log=log), mixed(5))
    text = path.read_text()
    entries = list(read_log(path))
    path.write_text(text[:-7])
    assert list(read_log(path)) == entries[:-1]
    path.write_text("nonsense\n" + text)
    with pytest.raises(InputError, match="line 1 is not an entry"):
        list(read_log(path))
    with pytest.raises(InputError, match="cannot be read"):
        list(read_log(tmp_path / "no.jsonl"))


def test_time_around_a_step_is_unknown_after_a_pause():
    runner = Scripted()
    log = []
    policy = Slow(parse_policy("sarathi"), runner)
    engine = Engine(runner, policy, blocks=600, clock=BusyClock(runner.now), log=log, compress=False)
    trace = Trace(arrival=np.array([0.0, 100.0]), prompt=np.array([5, 5]), output=np.array([3, 3]))
    drive(engine, trace)
    around = [sample.around for sample in samples_of(log)]
    assert [math.isnan(value) for value in around] == [True, False, False, True, False, False]
    assert around[1] == pytest.approx(2.1e-4)


@pytest.mark.parametrize("stop", [1, 100, 333])
def test_a_stopped_measurement_goes_on_where_it_was(tmp_path, monkeypatch, stop):
    whole = calibrated(Scripted(), monkeypatch)
    path = tmp_path / "c.partial"
    runner = Scripted(stop_after=stop)
    with pytest.raises(KeyboardInterrupt):
        calibrated(runner, monkeypatch, path)
    path.write_text(path.read_text() + '[[[1, 2')  # and it was killed in the middle of a line
    with SampleFile(path, {"what": "test"}) as kept:
        done, sized = kept.count, "most_tokens" in kept.notes
    measured = []
    original = Sweep.measure
    monkeypatch.setattr(Sweep, "measure", lambda self, step: measured.append(step) or original(self, step))
    monkeypatch.setattr(Sweep, "affordable", lambda self, seconds: 256)  # (found anew only by who was stopped before it was known)
    again = calibrated(Scripted(), monkeypatch, path)
    assert measured == prepared_first(measurements()[done:]) and sized == (stop > 3)
    assert again.count == whole.count
    assert [s[:5] for s in again.fitted] == [s[:5] for s in whole.fitted]
    assert [s.seconds for s in again.held_out] == pytest.approx([s.seconds for s in whole.held_out])
    with SampleFile(path, {"what": "test"}) as kept:
        assert repr(kept.fitted) == repr(again.fitted) and kept.notes == again.notes  # by text: no NaN equals another


def measurements(rounds=3):
    """The steps of a whole calibration, in their order; None where an engine serves."""
    sweep = Sweep(Scripted(), blocks=600, block_size=16, max_len=512, clock=lambda: 0.0, most_tokens=256, most_seqs=64)
    many = len(module.TOGETHER)
    return [
        step for number in range(rounds) for part in range(many) for step in [*(step for _, step in sweep.round(number)[part::many]), None]
    ]


def prepared_first(steps):
    """Each step, after two of its like if it is all decodes, or one when it first occurs."""
    seen = set()
    return [step for one in steps if one for step in [one] * (3 if not one.chunks else 1 if one in seen or seen.add(one) else 2)]


def test_measurements_of_something_else_are_not_mixed_in(tmp_path):
    path = tmp_path / "c.partial"
    with SampleFile(path, {"dtype": "float32"}) as kept:
        kept.add([StepSample(1, 10, (), (0, 0), 0, 0.1, math.nan)])
    with pytest.raises(InputError, match="another dtype"):
        SampleFile(path, {"dtype": "bfloat16"})
    path.write_text('{"dtype": "float32"}\n[1, 2]\n')
    with pytest.raises(InputError, match="no measurements"):
        SampleFile(path, {"dtype": "float32"})
    with pytest.raises(InputError, match="cannot be used"):
        SampleFile(tmp_path, {})


def test_too_few_steps_are_no_calibration():
    with pytest.raises(InputError, match="too few"):
        fit_steps([StepSample(1, 10 + i, (), (0, 0), 0, 0.1, math.nan) for i in range(5)], [], 4)


def test_cpu_time_is_refused_where_it_tells_nothing():
    with pytest.raises(InputError, match="--threads 1"):
        busy_clock("cpu", device="cpu", threads=2)
    with pytest.raises(InputError, match="--device cpu"):
        busy_clock("cpu", device="cuda", threads=1)
    with pytest.raises(InputError, match="choose one of"):
        busy_clock("sun", device="cpu", threads=1)


def mixed(n, rate=30.0, longest=400):
    draw = np.random.default_rng(3)
    return Trace(
        arrival=np.cumsum(draw.exponential(1 / rate, n)), prompt=draw.integers(1, longest, n), output=draw.integers(1, 40, n), name="mixed"
    )


def drive(engine, trace):
    found = Drive(engine, trace, lambda row: [row % 1000] * int(trace.prompt[row]))
    found.run()
    return found


@pytest.mark.parametrize("name", ["sarathi:max_num_batched_tokens=128", "vllm-v1:max_num_seqs=16", "layered", "orca"])
def test_with_the_true_costs_prediction_and_measurement_are_the_same(name):
    trace, runner, log = mixed(120), Scripted(), []
    engine = Engine(runner, parse_policy(name), blocks=600, clock=BusyClock(runner.now), log=log)
    measured = drive(engine, trace).measured(name, "scripted", {}, log)
    spec = Measured("m", fit(), 600, 16, 512).engine()
    predicted = simulate(trace, parse_policy(name), type(spec)(TABLES, 600, max_len=512))
    for column in ("arrival", "first_scheduled", "first_token", "finish"):
        np.testing.assert_allclose(getattr(measured, column), getattr(predicted, column), atol=1e-6)
    assert all(abs(cell.error) < 1e-4 for cell in cells(predicted, measured))
    for key in ("decode_tokens", "prefill_tokens", "decode_context", "prefill_area", "prefill_context"):
        assert measured.totals[key] == pytest.approx(predicted.totals[key])


def test_turns_that_follow_each_other_are_driven_as_they_are_simulated():
    trace = Trace(
        arrival=np.array([0.0, 0.0, 0.0, 0.01]), prompt=np.array([20, 30, 40, 50]), output=np.array([4, 5, 6, 7]),
        after=np.array([-1, 0, 1, -1]), delay=np.array([0.0, 0.5, 0.25, 0.0]),
    )  # fmt: skip
    runner, log = Scripted(), []
    engine = Engine(runner, parse_policy("sarathi"), blocks=600, clock=BusyClock(runner.now), log=log)
    measured = drive(engine, trace).measured("sarathi", "scripted", {}, log)
    spec = Measured("m", fit(), 600, 16, 512).engine()
    predicted = simulate(trace, parse_policy("sarathi"), type(spec)(TABLES, 600, max_len=512))
    np.testing.assert_allclose(measured.arrival, predicted.arrival, atol=1e-6)
    np.testing.assert_allclose(measured.finish, predicted.finish, atol=1e-6)


def test_a_request_that_does_not_fit_is_refused_before_anything_runs():
    runner = Scripted()
    engine = Engine(runner, parse_policy("sarathi"), blocks=600, clock=BusyClock(runner.now))
    with pytest.raises(InputError, match="1 of 3 requests are longer than the 512 tokens"):
        check_lengths(engine, Trace(arrival=np.zeros(3), prompt=np.array([1, 500, 2]), output=np.array([1, 50, 2])))


def test_ranking_counts_pairs_that_differ():
    trace = mixed(30)
    runs = {}
    for name in ("sarathi:max_num_seqs=64", "static"):
        runs[name] = simulate(trace, parse_policy(name), fit_engine())
    first, second = runs.values()

    def side(foreseen, measured):
        return cells(foreseen, measured, ("ttft", "e2e"), ("mean",))

    same, other = side(first, first), side(second, second)

    found = ranking([[same], [other]])
    assert found.pairs == found.right > 0
    assert ranking([[side(first, second)], [side(second, first)]]) == (found.pairs, 0)
    assert ranking([[same, other], [other, same]]) == (0, 0)  # one repetition says this, the other that


def fit():
    knots = np.array([1, 64, 2048])
    return fit_steps_of(knots)


def fit_steps_of(knots):
    from rota.cost.steps import RATES, Check, StepFit

    rates = {name: float(getattr(TABLES, name)) for name in RATES}
    heads = np.array([1, 299])
    return StepFit(knots, TABLES.layer[knots], heads, TABLES.head[heads], rates, 4, (Check("all", 9, 0.01, 0.02),))


def fit_engine():
    return Measured("m", fit(), 600, 16, 512).engine()


def test_a_file_of_costs_says_what_was_written(tmp_path):
    made = Measured("tiny", fit(), 600, 16, 512, {"device": "cpu", "threads": 1, "clock": "cpu"})
    made.write(tmp_path / "c.json")
    read = read_costs(tmp_path / "c.json")
    assert (read.blocks, read.block_size, read.max_len, read.conditions, read.label) == (600, 16, 512, made.conditions, made.label)
    mine, true = read.engine().tables, TABLES
    np.testing.assert_allclose(mine.layer[:2049], true.layer, rtol=1e-12)
    np.testing.assert_allclose(mine.head[:300], true.head, rtol=1e-12)
    assert mine.error == {"steps (hold-out)": 0.01}
    trace = mixed(50)
    theirs = simulate(trace, parse_policy("sarathi"), type(read.engine())(true, 600, max_len=512))
    np.testing.assert_allclose(simulate(trace, parse_policy("sarathi"), read.engine()).finish, theirs.finish, rtol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "nonsense", "is not JSON"),
        (lambda text: "[]", "is no file of measured costs"),
        (lambda text: text.replace('"version": 1', '"version": 9'), "has version 9"),
        (lambda text: text.replace('"cpu":', '"gpu":'), "'cpu' is missing or wrong"),
        (lambda text: text.replace('"n_layers": 4', '"n_layers": 0'), "engine.n_layers"),
        (lambda text: text.replace('"blocks": 600', '"blocks": "many"'), "missing or wrong"),
    ],
)
def test_a_broken_file_of_costs_is_named(tmp_path, change, message):
    path = tmp_path / "c.json"
    Measured("tiny", fit(), 600, 16, 512).write(path)
    path.write_text(change(path.read_text()))
    with pytest.raises(InputError, match=message) as found:
        read_costs(path)
    assert str(path) in str(found.value)


def test_time_at_work_leaves_out_waiting():
    at = [0.0]
    clock = BusyClock(lambda: at[0])
    assert clock.skip_to(5.0) and clock.now() == 5.0
    at[0] = 1.0
    assert clock.now() == 6.0
    assert clock.skip_to(2.0) and clock.now() == 6.0


def test_requests_without_end_are_reported_as_such():
    trace, runner = mixed(10), Scripted(stop_after=3)
    engine = Engine(runner, parse_policy("sarathi"), blocks=600, clock=BusyClock(runner.now))
    found = Drive(engine, trace, lambda row: [1] * int(trace.prompt[row]))
    with pytest.raises(KeyboardInterrupt):
        found.run()
    run = found.measured("sarathi", "scripted", {})
    assert np.isnan(run.finish).any() and not run.rejected.any()


