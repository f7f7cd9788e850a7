"""Weight formats: how far from the exact product each is, and that rows do not see each other; reduced precision; broken directories."""

import json

import pytest

from tests.engine.tiny import make, prompt_logits, torch

from rota.errors import InputError  # isort: skip
from rota.mechanisms.engine.model_runner import load_runner  # isort: skip
from rota.mechanisms.engine.weights import pack  # isort: skip


def product(weight_format, rows):
    generator = torch.Generator().manual_seed(rows)
    weight, x = torch.randn(48, 96, generator=generator), torch.randn(rows, 96, generator=generator)
    return pack(weight, None, weight_format), x, x.double() @ weight.double().T


@pytest.mark.parametrize("rows", [1, 3, 40])
@pytest.mark.parametrize(("weight_format", "error"), [("plain", 1e-5), ("int8", 0.03), ("w8a8", 0.03)])
def test_products_are_within_what_their_rounding_explains(weight_format, error, rows):
    linear, x, exact = product(weight_format, rows)
    found = linear(x)
    assert found.dtype == x.dtype
    # rounding to 8 bits: 1/254 of the largest of 96 values, about 1% of a typical product, twice where rows are rounded too
    assert float((found - exact).pow(2).mean().sqrt()) < error * float(exact.std())


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 3, 300])  # 300 rows are filled up to a multiple of 32
@pytest.mark.parametrize(("weight_format", "error"), [("plain", 1e-5), ("int8", 0.04), ("w8a8", 0.04)])
def test_what_comes_before_and_after_a_product(weight_format, error, rows, bias):
    """Norm, gate and sum, against double precision; values far from zero too, where a gate is all or nothing."""
    generator = torch.Generator().manual_seed(rows)
    weight, offset = torch.randn(48, 96, generator=generator), torch.randn(48, generator=generator) if bias else None
    x, to = 20 * torch.randn(rows, 192, generator=generator), torch.randn(rows, 48, generator=generator)
    norm = torch.rand(96, generator=generator)
    linear = pack(weight, offset, weight_format)

    def close(found, before, more):
        exact = before @ weight.double().T + (0 if offset is None else offset) + more
        assert found.shape == exact.shape
        assert float((found - exact).pow(2).mean().sqrt()) < error * float(exact.std())

    gate, up = x.double().chunk(2, dim=-1)
    gated = gate * torch.sigmoid(gate) * up
    half = x[:, :96]  # rows that do not lie one behind the other
    normed = half.double() / (half.double().pow(2).mean(dim=-1, keepdim=True) + 1e-6).sqrt() * norm
    close(linear.normed(half, norm, 1e-6), normed, 0)
    close(linear.gated(x), gated, 0)
    close(linear.added(to.clone(), half), half.double(), to)
    close(linear.gated_added(to.clone(), x), gated, to)


@pytest.mark.parametrize("weight_format", ["plain", "int8", "w8a8"])
def test_a_bias_is_added(weight_format):
    weight, bias = torch.randn(8, 16), torch.randn(8)
    x = torch.randn(2, 16)
    torch.testing.assert_close(pack(weight, bias, weight_format)(x), pack(weight, None, weight_format)(x) + bias)


@pytest.mark.parametrize("rows", [2, 16, 70])
def test_whole_number_products_of_a_row_are_the_same_in_any_company(rows):
    linear, x, _ = product("w8a8", rows)
    assert torch.equal(linear(x)[1:2], linear(x[1:2]))


@pytest.mark.parametrize(("options", "error"), [
    (dict(weight_format="int8"), 0.1), (dict(weight_format="w8a8"), 0.1), (dict(dtype="bfloat16"), 0.1), (dict(dtype="float16"), 0.02),
])  # fmt: skip
@pytest.mark.parametrize("name", ["llama", "mixtral", "mistral"])
def test_models_of_less_precision_stay_close(name, options, error, tmp_path):
    theirs = make(name, tmp_path)
    runner = load_runner(tmp_path, device="cpu", **{"dtype": "float32"} | options)
    runner.allocate(40, 4)
    tokens = torch.randint(0, 97, (40,), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(tokens[None]).logits[0]
    found = prompt_logits(runner, tokens.tolist(), [17, 9])
    # a rounded row may be routed to other experts, which the layers behind multiply: the median row, and no more than a third of chance
    errors = (found.float() - expected).pow(2).mean(-1).sqrt() / expected.std()
    assert float(errors.median()) < (0.4 if name == "mixtral" else error)


def test_directories_that_hold_no_model_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"config.json: cannot be read"):
        load_runner(tmp_path)
    make("llama", tmp_path)
    path = tmp_path / "config.json"
    good = json.loads(path.read_text())
    for change, match in [
        (dict(model_type="gpt2"), "model_type 'gpt2' cannot be run, only simulated"),
        (dict(hidden_act="gelu"), "hidden_act"),
        (dict(rope_parameters={"rope_type": "longrope"}), "longrope"),
        (dict(quantization_config={"quant_method": "gptq", "bits": 4}), "quantised"),
        (dict(intermediate_size=50), r"gate_proj.weight has shape \(48, 32\), but config.json implies \(50, 32\)"),
        (dict(num_hidden_layers=5), "layers.4.* is missing"),
    ]:
        path.write_text(json.dumps(good | change))
        with pytest.raises(InputError, match=match):
            load_runner(tmp_path, device="cpu")
    path.write_text(json.dumps(good))
    for options in (dict(dtype="int3"), dict(weight_format="int1"), dict(dtype="bfloat16", weight_format="w8a8")):
        with pytest.raises(InputError, match=list(options.values())[-1]):
            load_runner(tmp_path, device="cpu", **options)
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="safetensors"):
        load_runner(tmp_path, device="cpu")


def test_shards_are_read_as_one(tmp_path):
    theirs = make("llama", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    runner = load_runner(tmp_path, device="cpu", dtype="float32")
    runner.allocate(40, 4)
    tokens = torch.arange(20)
    with torch.no_grad():
        torch.testing.assert_close(prompt_logits(runner, tokens.tolist(), [20]), theirs(tokens[None]).logits[0], atol=1e-4, rtol=1e-4)
