"""Ctrl-C at every moment of a simulation ends in a `KeyboardInterrupt`, also where Numba runs Python code that cannot pass it on."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any

import numpy as np
import pytest

from rota.cost.engine import EngineSpec
from rota.cost.tables import StepTables
from rota.jit import uninterrupted
from rota.mechanisms.simulator import simulate
from rota.policies.registry import make_policy
from rota.workload.trace import Trace

LENGTHS = np.full(4, 40)
TRACE = Trace(np.arange(4) / 100, LENGTHS, LENGTHS, name="four")
TABLES = StepTables(layer=np.linspace(0, 1e-3, 64), head=np.linspace(0, 1e-4, 64), n_layers=16, decode_byte_s=1e-9, cpu=1e-3)
ENGINE = EngineSpec(TABLES, blocks=24, max_len=128)


class Press:
    """A trace function that presses Ctrl-C at the `moment`-th line, call or return from where the engine is run."""

    def __init__(self, moment: int) -> None:
        self.left, self.where, self.running = moment, "", False

    def __call__(self, frame: FrameType, event: str, _: Any) -> Press | None:
        name = frame.f_code.co_name
        self.running |= name == "_run_twin"
        if not self.running or self.left == 0:
            return None
        self.left -= 1
        if self.left == 0:
            self.where = f"{event} of {name}, line {frame.f_lineno} of {frame.f_code.co_filename}"
            signal.raise_signal(signal.SIGINT)
        self.running = (name, event) != ("_run_twin", "return")
        return self


def test_at_every_moment() -> None:
    policy = make_policy("sarathi")
    simulate(TRACE, policy, ENGINE)
    moments = 0
    while True:
        press = Press(moments + 1)
        sys.settrace(press)
        try:
            simulate(TRACE, policy, ENGINE)
        except KeyboardInterrupt:
            assert press.where
        else:
            assert not press.where, f"swallowed at {press.where}"
            break
        finally:
            sys.settrace(None)
        moments += 1
    assert moments > 150
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_waits_for_the_first_but_not_for_the_second() -> None:
    done = []

    def press(times: int) -> None:
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)
        done.append(times)

    with pytest.raises(KeyboardInterrupt):
        uninterrupted(press, 1)
    with pytest.raises(KeyboardInterrupt):
        uninterrupted(press, 2)
    assert done == [1]
    assert uninterrupted(max, 3, 4) == 4


def test_other_threads_are_left_alone() -> None:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(uninterrupted(max, 3, 4)))
    thread.start()
    thread.join()
    assert found == [4]
