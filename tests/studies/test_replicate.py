"""Cost draws have the width that their error states, and parallel work neither loses nor invents anything."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rota.errors import InputError, PlanRejected, RotaError
from rota.studies.replicate import NOMINAL, UNSTATED_ERROR, cost_draws, in_parallel
from tests.conftest import ROOT
from tests.studies.servers import SteadyServer


@settings(max_examples=15)
@given(st.floats(0.01, 0.3), st.integers(0, 1000))
def test_draws_deviate_as_much_as_the_error_says(error: float, seed: int) -> None:
    factors = np.array([draw.linear for draw in cost_draws({"linear (hold-out)": error}, 20_001, seed)[1:]])
    sigma = error * math.sqrt(math.pi / 2)
    # E|exp(s Z) - 1| in closed form, and the median of a log-normal
    expected = 2 * math.exp(sigma**2 / 2) * _normal(sigma) - math.exp(sigma**2 / 2)
    assert np.abs(factors - 1).mean() == pytest.approx(expected, rel=0.05)
    assert expected == pytest.approx(error, rel=0.15)
    assert np.median(factors) == pytest.approx(1.0, abs=6.5 * sigma / 100)


def _normal(x: float) -> float:
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


def test_the_first_draw_is_nominal_and_seeds_repeat() -> None:
    assert cost_draws({}, 1) == [NOMINAL]
    assert cost_draws({"linear": 0.1}, 5, 3) == cost_draws({"linear": 0.1}, 5, 3)
    assert cost_draws({"linear": 0.1}, 5, 3) != cost_draws({"linear": 0.1}, 5, 4)
    assert cost_draws({"linear": 0.1}, 5, 3)[:3] == cost_draws({"linear": 0.1}, 3, 3)


def test_each_kind_takes_its_own_error() -> None:
    draws = cost_draws({"linear (hold-out)": 0.2, "linear (validation)": 0.1, "end to end": 0.0}, 2000)[1:]
    spread = {kind: np.abs(np.log([getattr(d, kind) for d in draws])).mean() for kind in ("linear", "attention", "cpu")}
    assert spread["linear"] == pytest.approx(0.2, rel=0.1)
    assert spread["attention"] == 0.0
    assert spread["cpu"] == 0.0
    unstated = np.abs(np.log([d.cpu for d in cost_draws({}, 2000)[1:]])).mean()
    assert unstated == pytest.approx(UNSTATED_ERROR, rel=0.1)


def test_a_draw_scales_the_tables() -> None:
    engine = SteadyServer().engine(0)
    draw = cost_draws({"cpu": 0.5}, 2)[1]
    assert draw.apply(engine).tables.cpu == pytest.approx(engine.tables.cpu * draw.cpu)
    assert NOMINAL.apply(engine) is engine


def _square(x: int) -> int:
    return x * x


def _fail_on_three(x: int) -> int:
    if x == 3:
        raise PlanRejected("I4", "no blocks")
    return x


def _die(x: int) -> int:
    os._exit(9)


def _sleep(x: int) -> int:
    time.sleep(3600 if x else 0)
    return x


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_item_comes_back_once_with_its_index(jobs: int) -> None:
    assert sorted(in_parallel(_square, range(7), jobs)) == [(i, i * i) for i in range(7)]


def test_an_error_crosses_the_process_border_with_its_text() -> None:
    with pytest.raises(RotaError, match="rule I4: no blocks"):
        list(in_parallel(_fail_on_three, range(5), 2))


def test_a_dying_worker_is_an_error_not_a_hang() -> None:
    with pytest.raises(RotaError, match="worker process died"):
        list(in_parallel(_die, range(3), 2))


def test_stopping_early_ends_the_workers() -> None:
    before = multiprocessing.active_children()
    stream = in_parallel(_sleep, range(3), 2)
    assert next(stream) == (0, 0)
    assert len(multiprocessing.active_children()) == len(before) + 2
    stream.close()
    assert multiprocessing.active_children() == before


# the terminal shows nothing of the processes behind the one that is interrupted, wherever it is
INTERRUPTED = """
import os, signal, sys, threading
from tests.studies.test_replicate import _sleep_with
from rota.studies.replicate import in_parallel

def stop():
    os.killpg(0, signal.SIGINT)

if __name__ == "__main__":
    list(in_parallel(_sleep_with, [(0, b"")] * 2, 2))  # Python may lose an interrupt while it imports
    big = [(3600, b"x" * 30_000_000)] * 4
    try:
        threading.Timer(float(sys.argv[1]), stop).start()
        list(in_parallel(_sleep_with, big, 2))
    except KeyboardInterrupt:
        print("stopped")
"""


def _sleep_with(item: tuple[float, bytes]) -> None:
    time.sleep(item[0])


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.5])
def test_an_interrupt_in_the_middle_of_anything_ends_all_processes(delay: float) -> None:
    # communicate returns when the last process that could write has ended
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(delay)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, cwd=ROOT,
    ) as process:  # fmt: skip
        try:
            out, err = process.communicate(timeout=120)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, out, err) == (0, "stopped\n", "")


def test_jobs_below_one() -> None:
    with pytest.raises(InputError, match="jobs must be at least 1"):
        list(in_parallel(_square, range(3), 0))
