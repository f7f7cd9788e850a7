"""The oracle against runs of another simulator: per request, TTFT and end-to-end time of Microsoft's Vidur."""

import numpy as np
import pytest

from tests.oracle import vidur
from tests.oracle.oracle import simulate_oracle

RUNS = [
    ("sarathi512_q6.45_n512.csv", "sarathi", dict(max_num_seqs=512, max_num_batched_tokens=512)),
    ("sarathi512_q6.45_n2000.csv", "sarathi", dict(max_num_seqs=512, max_num_batched_tokens=512)),
    ("vllm_q6.45_n2000.csv", "vllm-vidur", dict(max_num_seqs=512, max_num_batched_tokens=16384)),
]


@pytest.mark.parametrize(("name", "policy", "options"), RUNS)
def test_equals_the_stored_vidur_run(name, policy, options):
    trace, stored = vidur.stored(name)
    mine = simulate_oracle(trace, policy, options, vidur.engine())
    for column, times in (("sched_delay", "first_scheduled"), ("ttft", "first_token"), ("e2e", "finish")):
        off = np.abs(np.array(mine[times]) - trace.arrival - stored[column])
        assert off.max() <= vidur.ROUNDING + 1e-9, f"{column}: {off.max()} s in row {off.argmax()}"
