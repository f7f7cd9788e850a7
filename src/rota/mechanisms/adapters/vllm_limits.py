"""What a vLLM can and cannot do for a batching policy, found out at the start and said in one line. Nothing here imports vLLM."""

from __future__ import annotations

from typing import Any

from rota.contracts.offline import OfflinePolicy
from rota.contracts.serving import BatchPolicy
from rota.errors import InputError, UnsupportedPolicy

#: What vLLM can be asked for (`rota.contracts.serving.CAPABILITIES`).
CAPABILITIES = frozenset({"chunk", "hybrid", "prefix_cache", "priority", "pause"})


def check_vllm(scheduler: Any, *, hook: bool) -> None:
    """Refuse a vLLM whose scheduling is more than requests, tokens and blocks.

    Parameters
    ----------
    scheduler : vllm.v1.core.sched.scheduler.Scheduler
    hook : bool
        Whether it asks, for each request, how many tokens may be computed; without that nothing a policy says would count.

    Raises
    ------
    InputError
        Naming what to turn off.
    """
    config = scheduler.vllm_config
    groups = scheduler.kv_cache_config.kv_cache_groups
    plain = len(groups) == 1 and type(groups[0].kv_cache_spec).__name__ == "FullAttentionSpec"
    faults = {
        "another vLLM than 0.32, on which this was tested: its scheduler has changed": not hook,
        "pipeline_parallel_size above 1": config.parallel_config.pipeline_parallel_size > 1,
        "speculative decoding": config.speculative_config is not None,
        "a KV connector (kv_transfer_config)": config.kv_transfer_config is not None,
        "LoRA adapters": config.lora_config is not None,
        "long_prefill_token_threshold (it is an option of the policy)": config.scheduler_config.long_prefill_token_threshold > 0,
        "a watermark": config.scheduler_config.watermark > 0,
        "a model with other than one kind of full attention": not plain,
        "a model with pictures, sound or an encoder": scheduler.max_num_encoder_input_tokens > 0,
    }
    found = [what for what, there in faults.items() if there]
    if found:
        raise InputError(f"Rota cannot schedule vLLM with {', '.join(found)}; turn it off, or leave out --scheduler-cls")


def check_policy(policy: BatchPolicy, scheduler: Any) -> None:
    """Refuse a policy that this vLLM cannot serve, or settings of vLLM that contradict it.

    Raises
    ------
    UnsupportedPolicy
        The policy needs what vLLM cannot do at all.
    InputError
        It needs another setting, which the message names.
    """
    missing = sorted(policy.requires - CAPABILITIES)
    if missing:
        raise UnsupportedPolicy(f"policy {policy.name} needs {', '.join(missing)}, which vLLM cannot do; choose another policy")
    if isinstance(policy, OfflinePolicy):
        raise UnsupportedPolicy(f"policy {policy.name} plans whole jobs and cannot serve requests as they come; choose another policy")
    config = scheduler.vllm_config
    budget, seats = scheduler.max_num_scheduled_tokens, scheduler.max_num_active_reqs
    blocks = scheduler.kv_cache_manager.block_pool.num_gpu_blocks - 1
    most = policy.max_step_tokens or min(policy.max_seqs * scheduler.max_model_len, blocks * scheduler.block_size)
    caching = scheduler.kv_cache_manager.enable_caching
    wrong = {
        f"--max-num-seqs {policy.max_seqs} (not {seats}), or give the policy max_num_seqs={seats}": policy.max_seqs > seats,
        f"--max-num-batched-tokens {most} (not {budget}): so many tokens the policy may put into a step": most > budget,
        "--enable-chunked-prefill": "chunk" in policy.requires and not config.scheduler_config.enable_chunked_prefill,
        "--enable-prefix-caching": policy.prefix_caching and not caching,
        "--no-enable-prefix-caching": caching and not policy.prefix_caching,
        f"--scheduling-policy {policy.order}": config.scheduler_config.policy != policy.order,
    }
    change = [what for what, is_so in wrong.items() if is_so]
    if change:
        raise InputError(f"policy {policy.name} needs another vLLM: start it with {'; '.join(change)}")
