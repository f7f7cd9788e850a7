"""Contents of KV blocks as numbers, and the idle blocks' order."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rota.contracts import columns as col
from rota.cost.engine import EngineSpec
from rota.cost.tables import StepTables
from rota.mechanisms.simulator import kernel
from rota.mechanisms.simulator import state as layout
from rota.mechanisms.simulator.contents import number_runs
from rota.mechanisms.simulator.engine import Engine
from rota.policies.registry import make_policy
from rota.workload.trace import Trace
from tests.simulator.scenarios import shared_prefixes

runs = st.lists(st.lists(st.integers(0, 3), max_size=6), min_size=1, max_size=12)


@given(runs)
def test_runs_have_one_number_exactly_where_they_and_all_before_them_are_equal(requests: list[list[int]]) -> None:
    ids = np.array([i for request in requests for i in request], np.int64)
    start = np.cumsum([0, *(len(request) for request in requests)]).astype(np.int64)
    numbers = number_runs(ids, start)
    seen: dict[tuple[int, ...], int] = {}
    for request, begin in zip(requests, start, strict=False):
        for j in range(len(request)):
            assert seen.setdefault(tuple(request[: j + 1]), int(numbers[begin + j])) == numbers[begin + j]
    assert sorted(seen.values()) == list(range(len(seen)))


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(12, 60), st.integers(1, 4))
def test_what_the_cache_says_of_its_blocks_agrees_whenever_one_looks(seed: int, n: int, blocks: int, per: int) -> None:
    rng = np.random.default_rng(seed)
    prompt, output = rng.integers(1, 33, n), rng.integers(1, 9, n)
    trace = Trace(arrival=np.sort(rng.uniform(0, 2, n)), prompt=prompt, output=output, **shared_prefixes(rng, prompt, output, 4, per))
    tables = StepTables(layer=np.full(65, 0.01), head=np.zeros(2), n_layers=1)
    spec = EngineSpec(tables=tables, blocks=blocks, block_size=4, max_len=48)
    assert trace.hash_ids is not None and trace.hash_start is not None
    engine = Engine(trace, layout.request_columns(trace, spec), make_policy("vllm-v1", max_num_seqs=8), spec, compress=True, compiled=True,
                    log=False, seed=0, chains=(number_runs(trace.hash_ids, trace.hash_start), trace.hash_start))  # fmt: skip
    engine.set_state(engine.state._replace(inbox=np.arange(n)))
    engine.state.ctl[layout.IN_TAIL] = n
    status = kernel.PAUSED
    while status == kernel.PAUSED:
        status = engine.run(plans=3)
        _check(engine.state)
    assert engine.state.ctl[col.FREE] == blocks


def _check(state: layout.State) -> None:
    ring = len(state.free)
    waiting = [int(state.free[at % ring]) for at in range(state.cache[layout.FREE_BEGIN], state.cache[layout.FREE_END])
               if state.block[state.free[at % ring], layout.AT] == at % ring]  # fmt: skip
    assert len(waiting) == len(set(waiting)) == state.ctl[col.FREE]
    assert set(waiting) == set(np.flatnonzero(state.block[:, layout.REFS] == 0))
    entered = set(np.flatnonzero(state.block[:, layout.ENTRY]))
    reached = []
    for row in range(1, len(state.pages)):
        firsts = state.pages[row][state.pages[row] > 0]
        assert len(firsts) == (state.page[row, layout.P_USED] if len(firsts) else 0)
        for b in firsts - 1:
            while b >= 0:
                reached.append(int(b))
                b = state.block[b, layout.COPY] - 1
    assert len(reached) == len(set(reached)) and set(reached) == entered
