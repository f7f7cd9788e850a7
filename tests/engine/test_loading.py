"""From a directory to text in one call."""

import pytest

from tests.engine.tiny import make

from rota.errors import DoesNotFit, InputError  # isort: skip
from rota.mechanisms.engine import SamplingParams, load_engine  # isort: skip
from rota.policies.registry import parse_policy  # isort: skip

tokenizers = pytest.importorskip("tokenizers", reason="text needs the package tokenizers (extra engine)")


def test_a_model_directory_and_a_policy_make_an_engine_that_writes_text(tmp_path):
    make("qwen3", tmp_path)
    words = {f"w{i}": i for i in range(97)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    engine = load_engine(tmp_path, parse_policy("sarathi:max_num_seqs=8"), device="cpu", kv_bytes=1 << 20, max_model_len=64, threads=1)
    stats = engine.stats()
    assert stats.blocks == (1 << 20) // (2 * 4 * 2 * 16 * 4 * 16)
    sid = engine.add_request(tokenizer.encode("w5 w6 w7").ids, SamplingParams(max_tokens=6, temperature=0.0))
    outputs = []
    while engine.has_work:
        outputs += engine.step()
    assert {o.sid for o in outputs} == {sid}
    assert "".join(o.text for o in outputs).split() == [f"w{o.token}" for o in outputs]
    stop = f"w{outputs[2].token}"
    engine.add_request([5, 6, 7], SamplingParams(max_tokens=6, temperature=0.0, stop=(stop,)))
    stopped = []
    while engine.has_work:
        stopped += engine.step()
    assert [o.token for o in stopped] == [o.token for o in outputs[: len(stopped)]]
    assert stopped[-1].finish == "stop"
    assert stop not in "".join(o.text for o in stopped)
    assert engine.stats().free_blocks == stats.blocks


@pytest.mark.parametrize("threads", [0, 100_000])
def test_threads_that_there_are_not_are_refused(threads, tmp_path):
    with pytest.raises(InputError, match="threads must be from 1 to"):
        load_engine(tmp_path, parse_policy("sarathi"), threads=threads)


def test_memory_for_no_two_blocks_is_refused_with_the_arithmetic(tmp_path):
    make("llama", tmp_path)
    with pytest.raises(DoesNotFit, match="give at least"):
        load_engine(tmp_path, parse_policy("sarathi"), device="cpu", kv_bytes=1000)


def test_policies_that_pin_are_told_what_prompts_cost(tmp_path):
    make("llama", tmp_path)
    engine = load_engine(tmp_path, parse_policy("continuum"), device="cpu", kv_bytes=1 << 20)
    a, b, c = engine.core.limits.prefill
    measured = a + 256 * b + 256**2 * c
    assert 1e-4 < measured < 5.0
    assert engine.core.pool.free == engine.stats().blocks


@pytest.mark.parametrize(("device", "message"), [("gpu", "choose one of auto, cpu, cuda"), ("cuda:99", "is not there"), ("cuda:x", "unknown")])
def test_devices_that_there_are_not_are_refused(device, message, tmp_path):
    make("llama", tmp_path)
    with pytest.raises(InputError, match=message):
        load_engine(tmp_path, parse_policy("sarathi"), device=device)


def test_a_cpu_gets_a_gibibyte_of_keys_and_values(tmp_path):
    make("llama", tmp_path)
    engine = load_engine(tmp_path, parse_policy("sarathi"), device="cpu", weight_format="int8", block_size=1024)
    kept = 2 * 4 * 2 * 8 * 2  # keys and values of 4 layers, 2 heads of 8, in bfloat16 beside 8-bit weights
    assert engine.stats().blocks == (1 << 30) // (kept * 1024)
