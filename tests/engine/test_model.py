"""The decoder computes what transformers computes, for every architecture, in one piece and in chunks and layer ranges."""

import numpy as np
import pytest

from tests.engine.tiny import MODELS, SIZE, make, prompt_logits, sequence, torch  # skips where PyTorch is missing

from rota.mechanisms.engine.core import Row  # isort: skip
from rota.mechanisms.engine.model_runner import load_runner  # isort: skip


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_transformers(name, reference, tmp_path):
    theirs = make(name, tmp_path)
    runner = load_runner(tmp_path, dtype="float32", device="cpu")
    runner._reference = reference
    runner.allocate(40, SIZE)
    tokens = torch.randint(0, 97, (61,), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(tokens[None]).logits[0]
    for pieces in ([61], [17, 3, 30], [1, 40]):
        found = prompt_logits(runner, tokens.tolist(), pieces)
        assert float(expected.std()) > 0.5
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_left_in_a_block_is_never_looked_at(dtype, tmp_path):
    make("mistral", tmp_path)
    runner = load_runner(tmp_path, dtype=dtype, device="cpu")
    runner.allocate(40, SIZE)
    tables = np.arange(40, dtype=np.int32).reshape(2, 20)
    long, short = sequence(range(30), 0), sequence(range(5), 1)
    depth = (0, runner.n_layers)

    def both():
        runner.forward([Row(long, 0, 29, depth, False, False), Row(short, 0, 4, depth, False, False)], tables)
        return runner.forward([Row(long, 29, 1, depth, True, True), Row(short, 4, 1, depth, True, True)], tables)

    clean = both()
    for pages in (*runner._kv.keys, *runner._kv.values):
        pages.fill_(float("nan"))
    assert torch.equal(both(), clean)


@pytest.mark.parametrize("name", ["llama", "qwen3", "mistral"])
def test_kv_in_bfloat16_is_that_of_the_reference_and_close_to_exact(name, tmp_path):
    theirs = make(name, tmp_path)
    tokens = torch.randint(0, 97, (61,), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        exact = theirs(tokens[None]).logits[0]
    found = []
    for reference in (False, True):
        runner = load_runner(tmp_path, dtype="float32", kv_cache_dtype="bfloat16", device="cpu")
        assert runner.kv_bytes_per_token == load_runner(tmp_path, dtype="bfloat16", device="cpu").kv_bytes_per_token
        runner._reference = reference
        runner.allocate(40, SIZE)
        for pieces in ([61], [17, 3, 30], [1, 40]):  # rounded before anyone looks at it, however the prompt is cut
            found.append(prompt_logits(runner, tokens.tolist(), pieces))
    # near a tie of rounding a last bit may differ, and with it the rows behind: the median row
    errors = torch.stack([(logits - found[0]).abs().amax(-1).median() for logits in found])
    assert float(errors.max()) < 1e-3
    assert 1e-4 < float((found[0] - exact).pow(2).mean().sqrt()) < 0.1 * float(exact.std())
