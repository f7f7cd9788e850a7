"""One vLLM on a tiny model, in a process of its own: reads a question as JSON from standard input, answers in JSON on the last line.

vLLM rewrites modules when it starts, so that one process cannot start two that import other things in between.
"""

import json
import os
import sys


def main():
    question = json.load(sys.stdin)
    os.environ.update(
        VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_CPU_OMP_THREADS_BIND="nobind", OMP_NUM_THREADS="1", VLLM_CPU_KVCACHE_SPACE="1",
        VLLM_LOGGING_LEVEL="ERROR", HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1",
    )  # fmt: skip
    if question["policy"]:
        os.environ["ROTA_POLICY"] = question["policy"]
        question["options"]["scheduler_cls"] = "rota.mechanisms.adapters.vllm.RotaScheduler"
    from vllm import LLM, SamplingParams
    from vllm.inputs import TokensPrompt

    options = dict(
        skip_tokenizer_init=True, dtype="float32", enforce_eager=True, max_model_len=256, max_num_seqs=8, max_num_batched_tokens=2048,
        block_size=32, enable_prefix_caching=False, disable_log_stats=True,
    )  # fmt: skip
    llm = LLM(model=question["model"], **(options | question["options"]))
    scheduler = llm.llm_engine.engine_core.engine_core.scheduler
    steps, preempted = [], 0
    schedule = scheduler.schedule

    def noted(*arguments):
        nonlocal preempted
        output = schedule(*arguments)
        steps.append({name.partition("-")[0]: n for name, n in output.num_scheduled_tokens.items()})
        preempted += len(output.preempted_req_ids or ())
        return output

    scheduler.schedule = noted
    prompts = [TokensPrompt(prompt_token_ids=tokens) for tokens in question["prompts"]]
    params = [
        SamplingParams(temperature=0, max_tokens=n, ignore_eos=True, detokenize=False, extra_args={"tenant": i % 2})
        for i, n in enumerate(question["lengths"])
    ]
    priorities = question.get("priorities")
    outputs = llm.generate(prompts, params, use_tqdm=False, **({"priority": priorities} if priorities else {}))
    pool = scheduler.kv_cache_manager.block_pool
    answer = {
        "tokens": [list(output.outputs[0].token_ids) for output in outputs],
        "finish": [output.outputs[0].finish_reason for output in outputs],
        "steps": [step for step in steps if step],
        "preempted": preempted,
        "leaked": pool.num_gpu_blocks - 1 - pool.get_num_free_blocks(),
        "kept": len(getattr(scheduler, "_seqs", ())) + len(scheduler.requests),
    }
    print("\n" + json.dumps(answer))


if __name__ == "__main__":
    main()
