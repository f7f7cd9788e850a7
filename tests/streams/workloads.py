"""Streaming sessions and engines for tests: costs that can be added up by hand, and random small problems."""

import numpy as np
from hypothesis import strategies as st

from rota.cost.engine import EngineSpec
from rota.cost.tables import StepTables
from rota.workload.streams import Streams

#: Tokens from which a step costs what a frame costs.
FRAME = 40
UNIT = 2.0**-10


def engine(frame=50, token=10, blocks=400, max_len=4000):
    """Steps below `FRAME` tokens cost `token` units, larger ones `frame` units; attention is free."""
    layer = np.full(4096, frame * UNIT)
    layer[:FRAME] = token * UNIT
    layer[0] = 0.0
    return EngineSpec(tables=StepTables(layer=layer, head=np.zeros(2), n_layers=1), blocks=blocks, block_size=16, max_len=max_len)


def one_session(at, texts, tokens=FRAME, prompt=1):
    """A session from time 0."""
    n = len(at)
    frame_tokens = np.full(n, tokens)
    return Streams(
        arrival=np.zeros(1), prompt=np.array([prompt]), max_tokens=np.array([prompt + tokens * n + sum(texts)]), frame_start=np.array([0, n]),
        frame_at=np.array(at, float), frame_tokens=frame_tokens, text_tokens=np.array(texts),
    )  # fmt: skip


@st.composite
def problems(draw):
    """Random sessions, and an engine that holds a few of them, with every cost term switched on."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sessions = draw(st.integers(1, 6))
    frames = rng.integers(1, 6, sessions)
    start = np.concatenate([[0], np.cumsum(frames)])
    arrival = np.cumsum(rng.exponential(draw(st.sampled_from([0.0, 0.02, 0.3])), sessions))
    gap = draw(st.sampled_from([0.0, 0.01, 0.1]))
    at = np.concatenate([arrival[i] + np.cumsum(rng.exponential(gap, n)) if gap else np.full(n, arrival[i]) for i, n in enumerate(frames)])
    tokens, texts = rng.integers(1, 60, start[-1]), rng.integers(1, 8, start[-1])
    prompt = rng.integers(1, 30, sessions)
    most = prompt + np.add.reduceat(tokens + texts, start[:-1]) + rng.integers(0, 20, sessions)
    streams = Streams(arrival=arrival, prompt=prompt, max_tokens=most, frame_start=start, frame_at=at, frame_tokens=tokens, text_tokens=texts)
    n = np.arange(200)
    tables = StepTables(
        layer=np.where(n > 0, 1.7e-4 + np.hypot(3.1e-5 * n, 2.3e-4), 0.0), head=np.where(n > 0, 1.3e-4 + 1.1e-5 * n, 0.0), n_layers=4,
        prefill_floor=1.2e-5, prefill_flop_s=4.1e-8, prefill_byte_s=9.3e-7, decode_floor=1.1e-5, decode_byte_s=1.7e-6, cpu=7e-5,
    )  # fmt: skip
    blocks = int(-(-most.max() // 16)) + draw(st.sampled_from([0, 3, 200]))
    return streams, EngineSpec(tables=tables, blocks=blocks, block_size=16, max_len=1000)
