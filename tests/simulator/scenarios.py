"""Random small serving problems: short prompts, tight memory, shared prefixes, priorities, pipelines, replicas, chains of requests."""

import numpy as np
from hypothesis import strategies as st

from rota.cost.engine import EngineSpec
from rota.cost.tables import TABLE, StepTables
from rota.workload.trace import Trace

POLICIES = {
    "static": dict(max_num_seqs=4),
    "orca": dict(max_num_seqs=4),
    "flover": dict(max_num_seqs=4),
    "orca-paged": dict(max_num_seqs=6),
    "vllm-v0": dict(max_num_seqs=6, max_num_batched_tokens=128),
    "vllm-v1": dict(max_num_seqs=6, max_num_batched_tokens=24),
    "sarathi": dict(max_num_seqs=6, max_num_batched_tokens=24),
    "sarathi-dynamic": dict(max_num_seqs=6, max_num_batched_tokens=32),
    "layered": dict(max_num_seqs=6, max_cohort_tokens=64, unit=8, stages=4),
}


class Scenario:
    def __init__(self, trace: Trace, engine: EngineSpec, replicas: int = 1, router: str = "round-robin") -> None:
        self.trace, self.engine, self.replicas, self.router = trace, engine, replicas, router

    def __repr__(self) -> str:
        t, e = self.trace, self.engine
        extra = {k: getattr(t, k).tolist() for k in ("priority", "after", "hash_ids", "hash_start") if getattr(t, k) is not None}
        return (
            f"Scenario(arrival={t.arrival.tolist()}, prompt={t.prompt.tolist()}, output={t.output.tolist()}, {extra}, blocks={e.blocks}, "
            f"block_size={e.block_size}, pp={e.pp}, kind={e.tables.kind}, noise={e.tables.noise}, launch={e.tables.launch}, "
            f"{self.replicas} x {self.router})"
        )


def tables(draw: st.DrawFn, pp: int) -> StepTables:
    """Costs with every term switched on, of irregular sizes so that no two events coincide by accident."""
    n = np.arange(40)
    layer = np.where(n > 0, 1.7e-4 + np.hypot(3.1e-5 * n, 2.3e-4), 0.0)
    head = np.where(n[:9] > 0, 1.3e-4 + 1.1e-5 * n[:9], 0.0)
    common = dict(layer=layer, head=head, n_layers=4 * pp, stages=pp, cpu=7.1e-5, cpu_per_seq=3.3e-6, send=1.9e-5, send_per_token=1.1e-7,
                  launch=draw(st.sampled_from([0.0, 2.71e-3])), noise=draw(st.sampled_from([0.0, 0.0, 0.1])))  # fmt: skip
    if draw(st.integers(0, 3)) == 0:
        c = np.arange(30)
        return StepTables(**common, kind=TABLE, kv_scale=8, decode_table=np.add.outer(np.arange(1, 9) * 1.3e-5, c * 4.7e-6),
                          prefill_table=np.add.outer(np.arange(1, 300) * 2.9e-6, np.arange(160) * 3.7e-6), prefill_long=np.arange(1, 600) * 2.9e-6,
                          batch_factor=1.1)  # fmt: skip
    return StepTables(**common, prefill_floor=1.2e-5, prefill_flop_s=4.1e-8, prefill_byte_s=9.3e-7, query_byte_s=2e-7,
                      decode_floor=1.1e-5, decode_byte_s=1.7e-6)  # fmt: skip


@st.composite
def scenarios(draw, plain=False, pipeline=True):
    """A `Scenario`; with ``plain`` without replicas, pipelines, chains and noise (what the oracle covers)."""
    n = draw(st.integers(1, 24))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pp = draw(st.sampled_from([1, 1, 1, 2, 3])) if pipeline and not plain else 1
    size = draw(st.sampled_from([4, 8, 16]))
    longest = draw(st.sampled_from([12, 40, 90]))
    prompt = rng.integers(1, longest + 1, n)
    output = np.minimum(rng.geometric(1 / draw(st.sampled_from([2, 8, 25])), n), 60)
    gap = draw(st.sampled_from([0.0, 3e-3, 2e-2, 2e-1]))
    arrival = np.cumsum(rng.exponential(gap, n)) if gap else np.zeros(n)
    columns = {}
    if draw(st.booleans()):
        columns["priority"] = rng.integers(0, 3, n)
    if draw(st.booleans()):
        columns |= shared_prefixes(rng, prompt, output, size, draw(st.sampled_from([1, 2])))
    if not plain and draw(st.integers(0, 2)) == 0:
        after = np.where(rng.random(n) < 0.5, -1, rng.integers(0, np.maximum(np.arange(n), 1)))
        after[0] = -1
        columns |= dict(after=after, delay=rng.exponential(1e-2, n))
    trace = Trace(arrival=arrival, prompt=prompt, output=output, **columns)
    need = int((prompt + output).max()) // size + 3
    blocks = need + draw(st.sampled_from([0, 1, 3, 10, 200]))
    blocks += (pp - 1) * need  # sequences in flight cannot be evicted: with less, half-done prompts may evict each other for ever
    replicas = 1 if plain else draw(st.sampled_from([1, 1, 2, 3]))
    router = draw(st.sampled_from(["round-robin", "random", "least-outstanding", "least-queued"]))
    engine = EngineSpec(tables=tables(draw, pp), blocks=blocks, block_size=size, max_len=160, pp=pp)
    return Scenario(trace, engine, replicas, router)


def shared_prefixes(rng, prompt, output, size, per):
    """Hash runs of `per` blocks where requests fall into three families that agree up to a random point."""
    family = rng.integers(0, 3, len(prompt))
    ids, start = [], [0]
    for i in range(len(prompt)):
        runs = -(-int(prompt[i] + output[i]) // (size * per))
        agree = rng.integers(0, runs + 1)
        ids += [1000 * int(family[i]) + j if j < agree else 10**6 + 1000 * i + j for j in range(runs)]
        start.append(len(ids))
    return dict(hash_ids=np.array(ids, np.int64), hash_start=np.array(start, np.int64), hash_block=size * per)
