"""What other engines reach on the same model: run by `benchmarks/engine.py --peer NAME=PYTHON` under the Python that has the peer.

    PYTHON benchmarks/engine_peers.py NAME MODEL_DIR [--threads 2] [--batches 1 16] [--prompt 128] [--output 128] [--repeat 3]

Prints one JSON line per row: peer, setting, batch, tokens per second of prefill and decode, each the best of the repetitions. Prefill is the
time for one new token, decode the rest of the time for all of them; greedy, no end token, random prompts that share nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

#: Gives tokens to prompts: (prompts, new tokens each).
Generate = Callable[[list[list[int]], int], object]


def vllm(folder: str, dtype: str, eager: bool, batch: int) -> Generate:
    from vllm import LLM, SamplingParams

    model = LLM(
        folder, dtype=dtype, enforce_eager=eager, max_model_len=1024, max_num_seqs=max(16, batch), max_num_batched_tokens=4096,
        enable_prefix_caching=False, seed=0,
    )  # fmt: skip

    def generate(prompts: list[list[int]], new: int) -> object:
        params = SamplingParams(max_tokens=new, temperature=0.0, ignore_eos=True, detokenize=False)
        return model.generate([{"prompt_token_ids": prompt} for prompt in prompts], params, use_tqdm=False)

    return generate


def transformers(folder: str, dtype: str) -> Generate:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    model.generation_config.eos_token_id = None

    def generate(prompts: list[list[int]], new: int) -> object:
        with torch.inference_mode():
            return model.generate(torch.tensor(prompts), max_new_tokens=new, min_new_tokens=new, do_sample=False, pad_token_id=0)

    return generate


def transformers_continuous(folder: str, dtype: str, page: int, tokens: int) -> Generate:
    """Its continuous batching, with a manager that stays from call to call and a cache no larger than it needs: masks are as wide as it is."""
    import torch
    from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation="sdpa").eval()
    model.generation_config.eos_token_id = None

    made_for = 0

    def generate(prompts: list[list[int]], new: int) -> object:
        nonlocal made_for
        if len(prompts) != made_for:
            model.destroy_cached_continuous_batching_manager()
            made_for = len(prompts)
        sized = ContinuousBatchingConfig(
            page_size=page, num_blocks=made_for * -(-tokens // page), max_batch_tokens=made_for * tokens, allow_block_sharing=False
        )  # fmt: skip
        config = GenerationConfig(max_new_tokens=new, do_sample=False, eos_token_id=-1, pad_token_id=0)
        found = model.generate_batch(
            prompts, generation_config=config, continuous_batching_config=sized, persistent_manager=True, progress_bar=False
        )  # fmt: skip
        assert all(len(one.generated_tokens) == new for one in found.values()), "not all tokens came"
        return found

    return generate


def onnxruntime(folder: str, precision: str, threads: int) -> Generate:
    import onnxruntime_genai as og

    made = Path(folder) / f"onnx-{precision}"
    if not (made / "genai_config.json").exists():
        build = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-m", folder, "-i", folder, "-o", str(made), "-p", precision, "-e", "cpu"]
        subprocess.run([*build, "-c", str(made / "cache")], check=True, stdout=subprocess.DEVNULL)
        config = json.loads((made / "genai_config.json").read_text())
        config["model"]["decoder"]["session_options"].update(intra_op_num_threads=threads)
        (made / "genai_config.json").write_text(json.dumps(config))
    model = og.Model(str(made))

    def generate(prompts: list[list[int]], new: int) -> object:
        params = og.GeneratorParams(model)
        length = len(prompts[0]) + new
        params.set_search_options(batch_size=len(prompts), max_length=length, min_length=length, do_sample=False)
        generator = og.Generator(model, params)
        generator.append_tokens(prompts)
        for _ in range(new):
            generator.generate_next_token()
        return generator

    return generate


def openvino(folder: str, precision: str, threads: int, exact: bool) -> Generate:
    """`exact`: computes in float32 too, not in what the processor is fastest at."""
    import openvino as ov
    import openvino_genai as og

    made = Path(folder) / f"openvino-{precision}"
    if not (made / "openvino_model.xml").exists():
        export = [sys.executable, "-m", "optimum.commands.optimum_cli", "export", "openvino", "-m", folder, "--task", "text-generation-with-past"]
        subprocess.run([*export, "--weight-format", precision, str(made)], check=True, stdout=subprocess.DEVNULL)
    scheduler = og.SchedulerConfig()
    scheduler.cache_size, scheduler.max_num_batched_tokens, scheduler.enable_prefix_caching = 2, 4096, False
    told = {"INFERENCE_NUM_THREADS": threads} | ({"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"} if exact else {})
    pipe = og.ContinuousBatchingPipeline(str(made), scheduler, "CPU", told)

    def generate(prompts: list[list[int]], new: int) -> object:
        config = og.GenerationConfig(max_new_tokens=new, min_new_tokens=new, ignore_eos=True)
        return pipe.generate([ov.Tensor([prompt]) for prompt in prompts], [config] * len(prompts))

    return generate


def settings(peer: str, folder: str, threads: int, batch: int, tokens: int) -> dict[str, Callable[[], Generate]]:
    """The settings of a peer by name; what they are best at differs, so all are tried."""
    types = ("float32", "bfloat16")
    if peer == "vllm":
        kinds = [(dtype, eager) for eager in (True, False) for dtype in types]
        return {f"{d}, {'eager' if e else 'compiled'}": lambda d=d, e=e: vllm(folder, d, e, batch) for d, e in kinds}
    if peer == "transformers":
        whole = {f"{d}, generate": lambda d=d: transformers(folder, d) for d in types}
        pages = [(d, page) for d in types for page in (32, 256)]
        return whole | {f"{d}, continuous, pages of {p}": lambda d=d, p=p: transformers_continuous(folder, d, p, tokens) for d, p in pages}
    if peer == "onnxruntime":
        return {precision: lambda p=precision: onnxruntime(folder, p, threads) for precision in ("fp32", "int4")}
    if peer == "openvino":
        kinds = [("fp32", True), ("fp32", False), ("int8", False)]
        return {f"{'float32, ' if e else ''}weights {p}": lambda p=p, e=e: openvino(folder, p, threads, e) for p, e in kinds}
    raise SystemExit(f"unknown peer {peer}; choose vllm, transformers, onnxruntime or openvino")


def rates(generate: Generate, prompts: list[list[int]], output: int, repeat: int) -> tuple[float, float]:
    """Tokens per second of prefill and decode."""
    generate(prompts, 2)
    best = [0.0, 0.0]
    for _ in range(repeat):
        times = [time.perf_counter()]
        for new in (1, output):
            generate(prompts, new)
            times.append(time.perf_counter())
        first, both = times[1] - times[0], times[2] - times[1]
        best = [max(best[0], len(prompts) * len(prompts[0]) / first), max(best[1], len(prompts) * (output - 1) / max(both - first, 1e-9))]
    return best[0], best[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer")
    parser.add_argument("folder")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--output", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 16])
    parser.add_argument("--setting", help="only this one; without, each runs in a process of its own")
    options = parser.parse_args()
    found = settings(options.peer, options.folder, options.threads, max(options.batches), options.prompt + options.output)
    if options.setting is None:
        cores = sorted(os.sched_getaffinity(0))[: options.threads] if hasattr(os, "sched_getaffinity") else range(options.threads)
        env = os.environ | {
            "OMP_NUM_THREADS": str(options.threads), "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)), "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1",
        }  # fmt: skip
        for setting in found:
            run = subprocess.run([sys.executable, *sys.argv, "--setting", setting], env=env, check=False)
            if run.returncode:
                print(f"{options.peer}, {setting}: left out, it ended with status {run.returncode}", file=sys.stderr)
        return
    import random

    if options.peer == "transformers":
        import torch

        torch.set_num_threads(options.threads)
    generate = found[options.setting]()
    for batch in options.batches:
        numbers = random.Random(batch)
        prompts = [[numbers.randrange(5, 30000) for _ in range(options.prompt)] for _ in range(batch)]
        prefill, decode = rates(generate, prompts, options.output, options.repeat)
        row = {"peer": options.peer, "setting": options.setting, "batch": batch, "prefill": round(prefill, 1), "decode": round(decode, 1)}
        print(json.dumps(row), flush=True)
        gc.collect()


if __name__ == "__main__":
    main()
