"""Speed of the engine: prefill and decode tokens per second of a random 125M-parameter Llama, and what its own bookkeeping costs.

    python benchmarks/engine.py [--threads 2] [--prompt 128] [--output 128] [--formats float32 int8 w8a8 transformers] [--batches 1 16]

Every figure is the best of `--repeat` runs through `Engine` itself: requests in, tokens out, policy, sampling and all. Prefill is the time
until all first tokens are there, decode the time from then on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numba
import torch

from rota.catalog.fields import Fields
from rota.catalog.shapes import ModelShape
from rota.cost.tables import StepTables
from rota.mechanisms.engine import Choice, Engine, ModelClock, SamplingParams
from rota.mechanisms.engine.config import DecoderConfig, Rope
from rota.mechanisms.engine.model import Decoder
from rota.mechanisms.engine.model_runner import ModelRunner
from rota.policies.registry import make_policy

SIZES = dict(layers=12, hidden=768, heads=12, kv_heads=12, head_dim=64, ffn=2048, vocab=32000)
#: Untied embeddings.
LLAMA = ModelShape(name="random-125m", max_len=1024, source="benchmark", **SIZES)


class RandomWeights:
    """A checkpoint that makes up its tensors."""

    def __contains__(self, name: str) -> bool:
        return not name.endswith("bias") and "_norm.weight" not in name

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._how = {"device": device, "dtype": dtype}

    def get(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.ones(shape, **self._how) if "norm" in name else 0.02 * torch.randn(shape, **self._how)


def random_llama(shape: ModelShape, weight_format: str, dtype: torch.dtype, device: str = "cpu") -> ModelRunner:
    """A model of this shape."""
    torch.manual_seed(0)
    config = DecoderConfig(
        family="llama", shape=shape, eps=1e-5, rope=Rope(10000.0, "default", Fields({}, "benchmark")), windows=(0,) * shape.layers,
        sparse=(False,) * shape.layers, norm_topk=False, end_tokens=frozenset(),
    )  # fmt: skip
    where = torch.device(device)
    return ModelRunner(Decoder(config, RandomWeights(where, dtype), dtype=dtype, weight_format=weight_format, device=where))


def run(runner: ModelRunner, batch: int, prompt: int, output: int, clock: Callable[[], float]) -> tuple[float, float]:
    """Prefill and decode tokens per second of `batch` requests that come at once."""
    policy = make_policy("sarathi", max_num_batched_tokens=512, max_num_seqs=max(16, batch))
    engine = Engine(runner, policy, blocks=batch * ((prompt + output) // 16 + 2) + 8)
    generator = torch.Generator().manual_seed(batch)
    params = SamplingParams(max_tokens=output, temperature=0.0, ignore_eos=True)
    for _ in range(batch):
        engine.add_request(torch.randint(0, 32000, (prompt,), generator=generator).tolist(), params)
    began, waiting = clock(), batch
    while waiting:
        waiting -= sum(o.token >= 0 for o in engine.step()) if engine.stats().generated_tokens < batch else waiting
    first, made = clock(), engine.stats().generated_tokens
    while engine.has_work:
        engine.step()
    end = clock()
    return batch * prompt / (first - began), (batch * output - made) / (end - first)


def run_transformers(batch: int, prompt: int, output: int, repeat: int, clock: Callable[[], float]) -> tuple[float, float]:
    """The same of transformers' own generation, a model of the same shape in single precision."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=SIZES["vocab"], hidden_size=SIZES["hidden"], intermediate_size=SIZES["ffn"], num_hidden_layers=SIZES["layers"],
        num_attention_heads=SIZES["heads"], max_position_embeddings=1024, eos_token_id=None, pad_token_id=0,
    )).eval()  # fmt: skip
    tokens = torch.randint(1, 32000, (batch, prompt))
    best = [0.0, 0.0]
    for _ in range(repeat):
        times = [clock()]
        for new in (1, output):
            model.generate(tokens, max_new_tokens=new, min_new_tokens=new, do_sample=False)
            times.append(clock())
        first, both = times[1] - times[0], times[2] - times[1]
        best = [max(best[0], batch * prompt / first), max(best[1], batch * (output - 1) / (both - first))]
    return best[0], best[1]


class NoModel:
    """A runner that computes nothing."""

    n_layers, vocab, max_len, end_tokens = 12, 32000, 4096, frozenset()

    def allocate(self, blocks: int, block_size: int) -> None: ...
    def forget(self, seq: object) -> None: ...
    def run(self, rows: list, tables: object) -> list[Choice]:
        return [Choice(1)] * sum(row.emits for row in rows)


def overhead(seqs: int, policy: str) -> float:
    """Seconds of policy and bookkeeping per step with so many sequences in decode, asked before every step."""
    import numpy as np

    tables = StepTables(layer=np.arange(9.0), head=np.arange(9.0), n_layers=12)
    best = float("inf")
    for _ in range(3):
        engine = Engine(NoModel(), make_policy(policy), blocks=seqs * 80, clock=ModelClock(tables), compress=False)
        for _ in range(seqs):
            engine.add_request([1] * 100, SamplingParams(max_tokens=1000, temperature=0.0))
        while engine.core.waiting or engine.core.prefills or not engine.core.decodes:
            engine.step()
        began = time.thread_time()
        for _ in range(300):
            engine.step()
        best = min(best, (time.thread_time() - began) / 300)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--output", type=int, default=128)
    parser.add_argument("--cpu-time", action="store_true", help="count CPU time: for one thread on a machine shared with others")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 16])
    parser.add_argument("--formats", nargs="*", default=["float32", "int8", "w8a8"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    numba.set_num_threads(min(options.threads, numba.config.NUMBA_NUM_THREADS))
    clock = time.process_time if options.cpu_time else time.perf_counter
    for policy in ("sarathi", "vllm-v1", "layered"):
        print(f"bookkeeping with 64 sequences, {policy}: {1e3 * overhead(64, policy):.3f} ms a step (CPU time)")
    kind = "CPU time" if options.cpu_time else "wall time"
    print(f"{'weights':>12} {'batch':>6} {'prefill':>10} {'decode':>10}   tokens/s, {options.threads} threads, {kind}")
    for name in options.formats:
        runner = None
        if name != "transformers":
            dtype = torch.bfloat16 if name == "bfloat16" else torch.float32
            runner = random_llama(LLAMA, "plain" if name in ("float32", "bfloat16") else name, dtype)
            run(runner, 1, 16, 8, clock)
        for batch in options.batches:
            if runner is None:
                prefill, decode = run_transformers(batch, options.prompt, options.output, options.repeat, clock)
            else:
                runs = [run(runner, batch, options.prompt, options.output, clock) for _ in range(options.repeat)]
                prefill, decode = (max(figures) for figures in zip(*runs, strict=True))
            print(f"{name:>12} {batch:>6} {prefill:>10.0f} {decode:>10.1f}", flush=True)


if __name__ == "__main__":
    main()
