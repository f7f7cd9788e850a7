"""Speed of the engine on a GPU: a random model of a catalog shape, against what the card's memory and arithmetic allow.

    python benchmarks/gpu.py [--model llama-3-8b] [--batches 1 16 64] [--prompt 512] [--output 128] [--formats plain int8] [--json FILE]

Requests go through `Engine` itself: policy, bookkeeping, sampling and all. A decode step is the median of all; its bound is the time in which
the card reads each weight once, and the keys and values of each context. How fast it reads is measured here, by adding up a large tensor and
by copying it. The bound of a prefill is two operations per weight and token at the rate of a large matrix product.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from rota.catalog.fields import Fields
from rota.catalog.load import load_model
from rota.catalog.shapes import ModelShape
from rota.mechanisms.engine import Engine, SamplingParams
from rota.mechanisms.engine.config import DecoderConfig, Rope
from rota.mechanisms.engine.model import Decoder
from rota.mechanisms.engine.model_runner import ModelRunner
from rota.policies.registry import make_policy


class RandomWeights:
    """A checkpoint that makes up its tensors."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._how = {"device": device, "dtype": dtype}

    def __contains__(self, name: str) -> bool:
        return not name.endswith("bias") and "_norm.weight" not in name

    def get(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.ones(shape, **self._how) if "norm" in name else 0.02 * torch.randn(shape, **self._how)


def random_llama(shape: ModelShape, weight_format: str, dtype: torch.dtype, device: str = "cuda") -> ModelRunner:
    """A model of this shape."""
    torch.manual_seed(0)
    config = DecoderConfig(
        family="llama", shape=shape, eps=1e-5, rope=Rope(10000.0, "default", Fields({}, "benchmark")), windows=(0,) * shape.layers,
        sparse=(False,) * shape.layers, norm_topk=False, end_tokens=frozenset(),
    )  # fmt: skip
    where = torch.device(device)
    return ModelRunner(Decoder(config, RandomWeights(where, dtype), dtype=dtype, weight_format=weight_format, device=where))


def seconds(work: Callable[[], object], repeat: int = 20) -> float:
    """Median time of a piece of work on the card."""
    times = []
    for i in range(repeat + 3):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        if i >= 3:
            times.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(times)


def ceilings() -> dict[str, float]:
    """Bytes per second read and copied (both directions counted), and operations per second of a product in bfloat16."""
    big = torch.randn(1 << 30, device="cuda", dtype=torch.bfloat16)
    other = torch.empty_like(big)
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    found = {
        "read": 2 * big.numel() / seconds(lambda: big.view(torch.int32).amax()),
        "copied": 4 * big.numel() / seconds(lambda: other.copy_(big)),
        "flops": 2 * 8192**3 / seconds(lambda: a @ a),
    }
    return found


def weights_of(runner: ModelRunner, weight_format: str) -> tuple[float, float]:
    """Bytes that a decode step reads of the weights (the embedding's few rows left out), and weights in matrices."""
    shape = runner.decoder.config.shape
    qkv = shape.hidden * shape.head_dim * (shape.heads + 2 * shape.kv_heads)
    layer = qkv + shape.heads * shape.head_dim * shape.hidden + 3 * shape.hidden * shape.ffn
    n = shape.layers * layer + shape.vocab * shape.hidden
    return n * (1.0 if weight_format == "int8" else runner.decoder.dtype.itemsize), float(n)


def measure(runner: ModelRunner, batch: int, prompt: int, output: int, chunk: int) -> dict[str, float]:
    """Seconds of the prefill and of a decode step (with and without what the host does around it), and the mean context of a decode."""
    policy = make_policy("sarathi", max_num_batched_tokens=chunk, max_num_seqs=max(16, batch))
    engine = Engine(runner, policy, blocks=batch * ((prompt + output) // 16 + 2) + 8)
    generator = torch.Generator().manual_seed(batch)
    params = SamplingParams(max_tokens=output, temperature=0.0, ignore_eos=True)
    vocab = runner.vocab
    for _ in range(batch):
        engine.add_request(torch.randint(0, vocab, (prompt,), generator=generator).tolist(), params)
    began, tokens = time.perf_counter(), engine.stats().generated_tokens
    while engine.core.waiting or engine.core.prefills or not tokens:
        engine.step()
        tokens = engine.stats().generated_tokens
    prefill, steps, computing, contexts = time.perf_counter() - began, [], [], []
    compute = runner.run

    def timed(rows: Any, tables: Any) -> Any:
        at = time.perf_counter()
        choices = compute(rows, tables)
        computing.append(time.perf_counter() - at)
        contexts.append(sum(row.start + 1 for row in rows) / len(rows))
        return choices

    runner.run = timed  # type: ignore[method-assign]
    try:
        while len(engine.core.decodes) == batch:
            at = time.perf_counter()
            engine.step()
            steps.append(time.perf_counter() - at)
        while engine.has_work:
            engine.step()
    finally:
        del runner.run
    whole = slice(3, len(steps) - 1)
    return {
        "prefill": prefill, "step": statistics.median(steps[whole]), "computing": statistics.median(computing[whole]),
        "context": statistics.mean(contexts[whole]),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="llama-3-8b")
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 16, 64])
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--output", type=int, default=128)
    parser.add_argument("--chunk", type=int, default=2048)
    parser.add_argument("--formats", nargs="*", default=["plain", "int8"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("no GPU that PyTorch can use")
    card, shape = ceilings(), load_model(options.model)
    bandwidth = max(card["read"], card["copied"])
    print(
        f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}: reads {card['read'] / 1e12:.2f} TB/s, copies {card['copied'] / 1e12:.2f} "
        f"TB/s, multiplies {card['flops'] / 1e12:.0f} TFLOP/s; random {options.model}, {options.prompt} tokens in, {options.output} out"
    )
    heads = ("weights", "batch", "prefill/s", "of bound", "decode/s", "step ms", "host ms", "bound ms", "of bound")
    print(" ".join(f"{head:>9}" for head in heads))
    rows = []
    for weight_format in options.formats:
        runner = random_llama(shape, weight_format, torch.bfloat16)
        read, n_weights = weights_of(runner, weight_format)
        for batch in options.batches:
            for _ in range(2):  # the first compiles and captures
                found = measure(runner, batch, options.prompt, options.output, options.chunk)
            bound = (read + batch * found["context"] * runner.kv_bytes_per_token) / bandwidth
            tokens = batch * options.prompt / found["prefill"]
            row = {
                "weights": weight_format, "batch": batch, "prefill_tokens_s": tokens, "prefill_of_bound": 2 * n_weights * tokens / card["flops"],
                "decode_tokens_s": batch / found["step"], "bound_s": bound, "decode_of_bound": bound / found["step"], **found,
            }  # fmt: skip
            rows.append(row)
            print(
                f"{weight_format:>9} {batch:>9} {tokens:>9.0f} {row['prefill_of_bound']:>9.0%} {row['decode_tokens_s']:>9.0f} "
                f"{1e3 * found['step']:>9.2f} {1e3 * (found['step'] - found['computing']):>9.2f} {1e3 * bound:>9.2f} "
                f"{row['decode_of_bound']:>9.0%}",
                flush=True,
            )
        del runner
        torch.cuda.empty_cache()
    if options.json is not None:
        options.json.write_text(json.dumps({"card": card, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
