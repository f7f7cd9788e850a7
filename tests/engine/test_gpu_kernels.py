"""The kernels for GPUs: on one, or interpreted on the processor, against PyTorch, and within whole models."""

import math
import os

import numpy as np
import pytest
from hypothesis import given, settings

from tests.engine.schedules import check, tokens, workloads
from tests.engine.tiny import make, prompt_logits, sequence, torch

GPU = torch.cuda.is_available()
os.environ.setdefault("TRITON_INTERPRET", "0" if GPU else "1")  # Triton reads it once
pytest.importorskip("triton", reason="kernels for GPUs are written in Triton")

from rota.mechanisms.engine import model_runner, weights  # isort: skip  # noqa: E402
from rota.mechanisms.engine.core import Row  # isort: skip  # noqa: E402
from rota.mechanisms.engine.gpu_attention import attend_chunks, attend_singles, tokens_per_tile  # isort: skip  # noqa: E402
from rota.mechanisms.engine.gpu_linear import GpuDense, GpuInt8  # isort: skip  # noqa: E402
from rota.mechanisms.engine.gpu_rows import gated, rms_norm, rotate_and_keep  # isort: skip  # noqa: E402
from rota.mechanisms.engine.gpu_step import Splits, splits_for  # isort: skip  # noqa: E402
from rota.mechanisms.engine.model_runner import load_runner  # isort: skip  # noqa: E402
from rota.mechanisms.engine.rope import rotate  # isort: skip  # noqa: E402

DEVICE = "cuda" if GPU else "cpu"
DTYPES = [torch.float32, torch.bfloat16] if GPU else [torch.float32]


def close(found, expected, dtype):
    error = (found.double() - expected.double()).norm() / expected.double().norm()
    assert error < {torch.float32: 2e-6, torch.bfloat16: 1e-2}[dtype], error


def formula(q, k, v, position, window):
    """One row q (heads, d) at `position` over k, v (kv_heads, positions, d), in double precision."""
    since = max(0, position + 1 - window) if window else 0
    k, v = (x[:, since : position + 1].double().repeat_interleave(len(q) // len(k), 0) for x in (k, v))
    return torch.einsum("hp,hpd->hd", (torch.einsum("hd,hpd->hp", q.double(), k) / math.sqrt(q.shape[1])).softmax(-1), v)


def pages(generator, slots, most, kv_heads, size, dim, dtype):
    """Pages full of noise, and block tables over them."""
    tables = torch.from_numpy(generator.permutation(slots * most).reshape(slots, most).astype(np.int32))
    noise = [torch.from_numpy(generator.standard_normal((slots * most, kv_heads, size, dim))).to(DEVICE, dtype) for _ in range(2)]
    dense = [x[tables.long()].transpose(1, 2).reshape(slots, kv_heads, -1, dim) for x in noise]
    return tables.to(DEVICE), *noise, *dense


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [0, 5, 70])
@pytest.mark.parametrize(("kv_heads", "group", "dim", "size"), [(2, 4, 64, 16), (1, 1, 24, 4), (2, 3, 32, 20)])
def test_chunks(dtype, window, kv_heads, group, dim, size):
    generator = np.random.default_rng(dim)
    lengths = [(0, 70), (90, 33), (31, 1)]
    tables, keys, values, k, v = pages(generator, 3, 40, kv_heads, size, dim, dtype)
    n, heads, most = sum(new for _, new in lengths), kv_heads * group, tokens_per_tile(group)
    rows = torch.from_numpy(generator.standard_normal((n, heads + 2 * kv_heads, dim))).to(DEVICE, dtype)
    tasks, expected, at = [], [], 0
    for slot, (past, new) in enumerate(lengths):
        tasks += [(at + i, min(most, new - i), slot, past + i) for i in range(0, new, most)]
        expected += [formula(rows[at + i, :heads], k[slot], v[slot], past + i, window) for i in range(new)]
        at += new
    out = rows.new_full((n, heads, dim), math.nan)
    attend_chunks(rows, keys, values, tables, torch.tensor(tasks, dtype=torch.int32, device=DEVICE), window, heads, out)
    close(out, torch.stack(expected), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [0, 100])
@pytest.mark.parametrize("splits", [Splits(1024, 1), Splits(64, 4), Splits(128, 2)])
def test_single_tokens(dtype, window, splits):
    generator = np.random.default_rng(1)
    kv_heads, group, dim, size = 2, 3, 32, 16
    tables, keys, values, k, v = pages(generator, 4, 16, kv_heads, size, dim, dtype)
    heads = kv_heads * group
    positions = torch.tensor([0, 255, -1, 130], dtype=torch.int32, device=DEVICE)
    rows = torch.from_numpy(generator.standard_normal((4, heads + 2 * kv_heads, dim))).to(DEVICE, dtype)
    out = rows.new_full((4, heads, dim), math.nan)
    attend_singles(rows, keys, values, tables, positions, window, heads, *splits, out)
    real = [0, 1, 3]
    close(out[real], torch.stack([formula(rows[i, :heads], k[i], v[i], int(positions[i]), window) for i in real]), dtype)
    assert (out[2] == 0).all()  # a row that is not there


@pytest.mark.parametrize("rows", [1, 7, 64, 500])
@pytest.mark.parametrize("longest", [1, 127, 128, 129, 8192, 100_000])
def test_splits_cover_the_longest(rows, longest):
    splits = splits_for(rows, 8, longest)
    assert splits.length * splits.parts >= longest > splits.length * splits.parts // 2 - 1 or splits.parts == 1
    assert splits.parts & (splits.parts - 1) == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("dim", [64, 24])
def test_heads_are_rotated_and_kept(dtype, norm, dim):
    torch.manual_seed(dim)
    n, heads, kv_heads, size = 5, 4, 2, 16
    rows = torch.randn(n, heads + 2 * kv_heads, dim, device=DEVICE, dtype=dtype)
    q, k, v = rows.clone().split([heads, kv_heads, kv_heads], dim=1)
    norms = tuple(torch.rand(dim, device=DEVICE, dtype=dtype) for _ in range(2)) if norm else None
    turns = torch.rand(n, 1, dim // 2, device=DEVICE).repeat(1, 1, 2)
    cos, sin = turns.cos().to(dtype), turns.sin().to(dtype)
    keys, values = (torch.zeros(7, kv_heads, size, dim, device=DEVICE, dtype=dtype) for _ in range(2))
    where = torch.tensor([3, 17, -1, 6 * size + 15, 40], dtype=torch.int32, device=DEVICE)
    if norms:
        q, k = (torch.nn.functional.rms_norm(x, w.shape, w, 1e-5) for x, w in zip((q, k), norms, strict=True))
    rotate_and_keep(rows, norms, 1e-5, cos, sin, keys, values, where)
    close(rows[:, :heads], rotate(q, cos, sin), dtype)
    kept = torch.tensor([0, 1, 3, 4], device=DEVICE)
    at = where[kept].long()
    close(keys[at // size, :, at % size], rotate(k, cos, sin)[kept], dtype)
    assert (values[at // size, :, at % size] == v[kept]).all()
    assert int((values != 0).any(-1).sum()) == 4 * kv_heads


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [48, 1500])
def test_gate_and_norm(dtype, width):
    x = torch.randn(3, 2 * width, device=DEVICE, dtype=dtype)
    gate, up = x.chunk(2, dim=-1)
    close(gated(x), torch.nn.functional.silu(gate) * up, dtype)
    weight = torch.rand(2 * width, device=DEVICE, dtype=dtype)
    close(rms_norm(x, weight, 1e-5), torch.nn.functional.rms_norm(x.double(), weight.shape, weight.double(), 1e-5), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", [GpuDense, GpuInt8])
@pytest.mark.parametrize(("n", "ins", "outs"), [(1, 48, 97), (20, 1100, 130), (130, 256, 64)])
def test_products(dtype, bias, kind, n, ins, outs):
    torch.manual_seed(n)
    weight = torch.randn(outs, ins, device=DEVICE, dtype=dtype)
    b = torch.randn(outs, device=DEVICE, dtype=dtype) if bias else None
    x, to = torch.randn(n, ins, device=DEVICE, dtype=dtype), torch.randn(n, outs, device=DEVICE, dtype=dtype)
    product = kind(weight, b)
    if kind is GpuInt8:
        whole, scale = weights.quantise_weight(weight)
        weight = whole.double() * scale.double()[:, None]
    expected = x.double() @ weight.double().t() + (0 if b is None else b.double())
    close(product(x), expected, dtype)
    expected += to.double()  # first: it may be overwritten
    close(product.added(to, x), expected, dtype)


@pytest.mark.parametrize("name", ["llama", "qwen2-window", "qwen3", "mixtral", "llama-yarn"])
def test_models_are_those_of_transformers(name, tmp_path, monkeypatch):
    model = make(name, tmp_path)
    with monkeypatch.context() as patch:
        if not GPU:
            for module in (weights, model_runner):
                patch.setattr(module, "runs_triton", lambda *_: True)
        runner = load_runner(tmp_path, dtype="float32", device=DEVICE)
    runner.allocate(40, 4)
    tokens = torch.randint(0, 97, (50,), generator=torch.Generator().manual_seed(3)).tolist()
    with torch.inference_mode():
        expected = model(torch.tensor([tokens])).logits[0]
        found = prompt_logits(runner, tokens, [17, 20, 3])
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-4)


@pytest.mark.skipif(not GPU, reason="needs a GPU")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("weight_format", ["plain", "int8"])
def test_graphs_compute_what_kernels_do_one_by_one(dtype, weight_format, tmp_path):
    make("llama", tmp_path)
    runner = load_runner(tmp_path, dtype=dtype, weight_format=weight_format, device=DEVICE)
    runner.allocate(400, 4)
    generator = np.random.default_rng(0)
    tables = generator.permutation(400).reshape(10, 40).astype(np.int32)
    seqs = [sequence(generator.integers(0, 97, 100), slot) for slot in range(10)]
    prompts = [Row(seq, 0, int(n), (0, 4), False, False) for seq, n in zip(seqs, generator.integers(1, 90, 10), strict=True)]
    with torch.inference_mode():
        runner.forward(prompts, tables)
        for some in (slice(0, 10), slice(2, 5), slice(0, 10), slice(9, 10)):
            rows = [Row(row.seq, row.n_tokens, 1, (0, 4), True, True) for row in prompts[some]]
            expected = runner.decoder.logits(runner.forward(rows, tables))
            torch.testing.assert_close(runner._graphs.logits(rows, tables), expected, rtol=0, atol=1e-4 if dtype == "float32" else 0.1)


@pytest.fixture(scope="session")
def on_gpu(tmp_path_factory):
    """Of single precision, on the GPU."""
    found = []
    for name in ("qwen3", "mistral", "mixtral"):
        folder = tmp_path_factory.mktemp(name)
        make(name, folder)
        found.append(load_runner(folder, dtype="float32", device=DEVICE))
    return found


@pytest.mark.skipif(not GPU, reason="needs a GPU")
@settings(max_examples=60, deadline=None)
@given(workload=workloads())
def test_any_schedule_gives_every_request_its_own_tokens(on_gpu, workload):
    check(on_gpu[workload[-1]], workload, tokens)
