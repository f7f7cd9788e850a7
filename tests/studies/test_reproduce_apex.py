"""The APEX study's arithmetic: curves, knees and verdicts, on curves made by hand."""

import numpy as np
import pytest

from rota.studies.reproduce import apex
from rota.studies.reproduce.apex import CELLS, HYBRIDS, Point, knee, throughput_at, workload


def curve(*throughputs, cell=CELLS[0]):
    return tuple(Point(x, clients, 0.1, 0.5) for x, clients in zip(throughputs, cell.clients, strict=True))


def test_a_point_has_its_latency_by_littles_law():
    assert Point(50.0, 25, 0.1, 0.0).latency == 0.5


def test_throughput_at_a_latency_lies_between_the_measured_points():
    it = curve(40, 80, 96, 100, 90)  # latencies 0.1, 0.2, 0.5, 1.28, 4.27
    assert throughput_at(it, 0.05) == 0
    assert throughput_at(it, 0.2) == 80
    assert 80 < throughput_at(it, 0.3) < 96
    assert throughput_at(it, 9.0) == 100
    assert knee(it) == pytest.approx(0.47, abs=0.03)  # 95 tokens/s
    assert throughput_at(it, knee(it)) == pytest.approx(95, rel=1e-3)


def test_clients_wait_for_their_answers():
    trace = workload(CELLS[1], seed=1, n=50, clients=8)
    assert (trace.after[:8] == -1).all()
    assert (trace.after[8:] == np.arange(42)).all()
    assert (trace.prompt + trace.output <= CELLS[1].longest).all()


@pytest.mark.parametrize(("factor", "verdict"), [(2.0, "reproduced"), (1.5, "partly"), (0.9, "not reproduced")])
def test_verdicts_follow_the_measurement(factor, verdict):
    curves = {}
    for cell in CELLS:
        base = [10.0, 20.0, 30.0, 31.0, 31.0]
        curves[cell.name, "vLLM"] = [curve(*base, cell=cell)] * 3
        for policy in HYBRIDS:
            faster = factor if policy == apex.APEX else 1.0
            curves[cell.name, policy] = [curve(*(faster * x for x in base), cell=cell)] * 3
    findings = apex._claims(CELLS, curves)
    assert findings[0].claim == "More tokens/s than vLLM on a T4"
    assert findings[0].verdict == verdict
    assert findings[0].measured.startswith(f"{factor:.3g}x")


def test_a_small_cell_measures_what_the_table_shows():
    small = apex.Cell("small", "llama-2-7b", "t4", "g4dn-4xlarge", 0.95, 512, 60, 60, (2, 24))
    slow, fast = (apex.measure((small, 0, 20, policy)) for policy in ("vLLM", "neo"))
    assert fast[1].throughput > 1.2 * slow[1].throughput
    assert slow[1].hosted == 0 < fast[1].hosted
