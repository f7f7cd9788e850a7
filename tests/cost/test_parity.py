"""Tables of the stored Vidur runs, and the first request, which ran alone."""

import csv

import numpy as np
import pytest

from rota.cost.model import CostModel
from rota.cost.parity import vidur_tables
from rota.errors import InputError


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "data" / "fidelity" / "vidur"


def test_the_first_request_of_the_stored_run(folder):
    model = CostModel(vidur_tables(folder / "optables_ms_exact.npz"))
    with open(folder / "sarathi512_q6.45_n512.csv", newline="") as file:
        first = next(csv.DictReader(file))
    assert float(model.prefill_seconds(int(first["prefill"]))) == pytest.approx(float(first["ttft"]), abs=1e-7)


def test_chunks_of_a_prompt_add_up_as_tabulated(folder):
    tables = vidur_tables(folder / "optables_ms_exact.npz")
    model = CostModel(tables)
    for past, n in ((512, 512), (1000, 7), (16320, 1)):
        attention = tables.prefill_table[n - 1, -(-past // 64)]
        assert model.step_seconds(prefill=[(past, n)]) == pytest.approx(32 * (tables.layer[n] + attention), rel=1e-12)
    assert model.step_seconds(3, 3 * 100) == pytest.approx(32 * (tables.layer[3] + 1.1 * tables.decode_table[2, 2]), rel=1e-12)
    assert np.all(tables.layer[1:] > 0)


def test_files_that_are_no_tables(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        vidur_tables(tmp_path / "no.npz")
    np.savez(tmp_path / "x.npz", decode=np.zeros(1))
    with pytest.raises(InputError, match="not an operation table"):
        vidur_tables(tmp_path / "x.npz")
