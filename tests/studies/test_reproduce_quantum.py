"""The quantum network study: bounds by hand, reading of measured data, and the verdicts of a quick run."""

import json

import pytest

from rota.errors import InputError
from rota.studies.reproduce.claim import NEEDS_DATA, REPRODUCED, Options
from rota.studies.reproduce.quantum_network import VARIANTS, _jitter, outcome, run
from rota.workload.shop.entanglement import SLOT_S
from rota.workload.shop.quantum import demands, made_up_links, networks, read_folder


@pytest.mark.parametrize("seed", range(5))
def test_a_star_gives_no_more_than_its_centre_can(seed):
    offered = demands(networks(made_up_links())["star"], 0.7, 40, seed)
    assert len({one.protocol.duration for one in offered}) == 1
    busy = sum(b - a for a, b in offered[0].protocol.profile()["c3"])
    for how in VARIANTS.values():
        found = outcome(offered, *how)
        assert found.checked
        assert found.throughput <= 1 / (busy * SLOT_S) + 1e-9
    assert outcome(offered, "network").throughput <= 1 / (offered[0].protocol.duration * SLOT_S) + 1e-9


def test_jitter_by_hand():
    assert _jitter([3, 11, 19], 8, 24) == 0
    assert _jitter([0, 10], 8, 16) == 4  # gaps of 10 and 6 slots


def test_verdicts_of_a_quick_run():
    pytest.importorskip("ortools")
    report = run(Options(seeds=1, quick=True))
    verdicts = [finding.verdict for finding in report.findings]
    assert verdicts[0] == REPRODUCED
    assert verdicts[-1] == NEEDS_DATA
    assert len(report.tables[0].rows) > 15


def test_measured_data_is_read_or_refused(tmp_path):
    with pytest.raises(InputError, match="is not there"):
        read_folder(tmp_path)
    file = tmp_path / "nv_link_capabilities.json"
    file.write_text(json.dumps({"by_length_km": {"5": [{"fidelity": 0.9, "rate_per_s": 10.0}]}}))
    assert read_folder(tmp_path) == (((0.9, 10.0),), None)
    (tmp_path / "topologies.json").write_text(json.dumps({"surfnet": {
        "nodes": [{"name": "a", "end_node": True}, {"name": "b", "end_node": False}, {"name": "c", "end_node": True}],
        "edges": [["a", "b", 5.0], ["b", "c", 7.0]], "link_capability": {"fidelity": 0.999, "rate_per_s": 1400},
    }}))  # fmt: skip
    _, net = read_folder(tmp_path)
    assert net is not None
    assert (net.users, net.neighbours[1]) == ((0, 2), {0: 5.0, 2: 7.0})
    file.write_text('{"by_length_km":\n{"5": [')
    with pytest.raises(InputError, match=r"nv_link_capabilities\.json:2: is not JSON"):
        read_folder(tmp_path)
    file.write_text("{}")
    with pytest.raises(InputError, match="not as expected"):
        read_folder(tmp_path)


def test_on_measured_links_and_surfnet(shared):
    links, net = read_folder(shared / "data" / "shop" / "quantum")
    assert len(links) == 10
    assert net is not None
    assert len(net.users) == 54
    offered = demands(net, 0.9, 50, 0)
    coarse, fine = (outcome(offered, occupancy) for occupancy in ("network", "qubits"))
    assert coarse.checked
    assert fine.checked
    assert fine.throughput > coarse.throughput
