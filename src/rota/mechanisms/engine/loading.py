"""A model directory and a policy in, an engine out."""

from __future__ import annotations

from pathlib import Path

from rota.contracts.serving import BatchPolicy
from rota.errors import DoesNotFit, InputError
from rota.mechanisms.engine.clock import Clock
from rota.mechanisms.engine.engine import Engine
from rota.mechanisms.engine.log import Log
from rota.mechanisms.engine.text import Tokenizer


def load_engine(
    folder: Path | str, policy: BatchPolicy, *, dtype: str = "auto", weight_format: str = "plain", device: str = "auto",
    kv_bytes: int | None = None, swap_bytes: int = 4 << 30, block_size: int = 16, max_model_len: int | None = None, clock: Clock | None = None,
    tokenizer: Tokenizer | None = None, log: Log | None = None, seed: int = 0, threads: int | None = None, kv_cache_dtype: str = "auto",
) -> Engine:  # fmt: skip
    """An engine for a Hugging Face model directory.

    Parameters
    ----------
    folder : Path or str
    policy : BatchPolicy
        Such as `rota.policies.registry.parse_policy` gives.
    dtype, weight_format, device, kv_cache_dtype : str
        See `rota.mechanisms.engine.model_runner.load_runner`.
    kv_bytes : int, optional
        Memory for the KV cache; by default 1 GiB on a CPU, and nine tenths of a GPU's memory with the weights.
    swap_bytes : int
        Host memory (pinned with a GPU) for KV that a policy swaps out; not taken for other policies.
    block_size : int
        Tokens per KV block.
    max_model_len : int, optional
        Longest prompt and answer together; by default what config.json says.
    clock, tokenizer, log, seed
        See `Engine`. Without a tokenizer, ``tokenizer.json`` in the directory is used if it is there.
    threads : int, optional
        CPU threads, of the whole process; by default one per core.

    Raises
    ------
    InputError, DoesNotFit, UnsupportedPolicy
        If PyTorch is not installed, the directory holds no model that can be run, a memory does not hold its blocks, or the policy
        needs what the engine cannot do.
    """
    try:
        from rota.mechanisms.engine.model_runner import load_runner, use_threads
    except ImportError as error:
        raise InputError(f"the engine needs PyTorch and safetensors ({error}); install them: pip install 'rota[engine]'") from None
    if threads is not None:
        use_threads(threads)
    folder = Path(folder)
    runner = load_runner(folder, dtype=dtype, weight_format=weight_format, device=device, kv_cache_dtype=kv_cache_dtype)
    kv_bytes = runner.spare_bytes() if kv_bytes is None else kv_bytes
    blocks = kv_bytes // (runner.kv_bytes_per_token * block_size)
    if blocks < 2:
        need = 2 * runner.kv_bytes_per_token * block_size
        raise DoesNotFit(f"{kv_bytes} bytes of KV cache hold no two blocks of {block_size} tokens; give at least {need}")
    host_blocks = swap_bytes // (runner.kv_bytes_per_token * block_size)
    if "swap" in policy.requires and host_blocks < 1:
        need = runner.kv_bytes_per_token * block_size
        raise DoesNotFit(
            f"policy {policy.name} swaps KV to host memory, and {swap_bytes} bytes of it hold no block; give at least {need} (--swap-space, in GiB), "
            "or choose a policy without preemption=swap"
        )
    if tokenizer is None and (folder / "tokenizer.json").exists():
        from tokenizers import Tokenizer as FileTokenizer

        tokenizer = FileTokenizer.from_file(str(folder / "tokenizer.json"))
    runner.allocate(blocks, block_size)
    runner.warm_up()
    fit = runner.measure_prefill(blocks, block_size) if "pin" in policy.requires else (0.0, 0.0, 0.0)
    return Engine(
        runner, policy, blocks=blocks, block_size=block_size, max_len=max_model_len, clock=clock, tokenizer=tokenizer, log=log, seed=seed,
        prefill_fit=fit, host_blocks=host_blocks,
    )  # fmt: skip


def chosen_dtypes(dtype: str, kv_cache_dtype: str, weight_format: str, device: str) -> tuple[str, str]:
    """What ``"auto"`` means for a computation and its KV cache on a device: bfloat16 on a GPU, float32 on a CPU, where KV is kept in bfloat16
    beside weights of 8 bits."""
    if dtype == "auto":
        dtype = "float32" if device == "cpu" else "bfloat16"
    if kv_cache_dtype == "auto":
        kv_cache_dtype = dtype if weight_format == "plain" or dtype != "float32" else "bfloat16"
    return dtype, kv_cache_dtype


def device_of(device: str) -> str:
    """The device that ``"auto"`` means here, or `device`.

    Raises
    ------
    InputError
        If PyTorch is not installed.
    """
    try:
        from rota.mechanisms.engine.model_runner import chosen_device
    except ImportError as error:
        raise InputError(f"the engine needs PyTorch and safetensors ({error}); install them: pip install 'rota[engine]'") from None
    return chosen_device(device)
