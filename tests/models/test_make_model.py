"""Directories that `rota make-model` writes are what transformers takes them for, and the same for the same seed."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from tokenizers import Tokenizer

from rota.catalog import load_model, model_names
from rota.cli.main import run as rota
from rota.errors import InputError
from rota.mechanisms.server.chat import read_template
from rota.models.architectures import SMALL, family, named_shape, parameters, scaled
from rota.models.bpe import BEGIN, END, train_tokenizer
from rota.models.corpus import python_documents
from rota.models.directory import random_model
from rota.models.llama import Llama
from rota.models.muon import orthogonal
from rota.models.train import SHAPE, Recipe, encode, text_of, train, write

TINY = replace(SHAPE, layers=2, hidden=64, heads=2, kv_heads=1, head_dim=32, ffn=128, vocab=512)
QUICK = Recipe(steps=6, rows=2, length=32, warmup=2)


def files(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "trained"
    write(folder, TINY, QUICK, train(TINY, QUICK))
    return folder


def test_a_trained_model_has_the_logits_of_transformers(trained: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(trained, dtype=torch.float32).eval()
    ours = Llama(TINY)
    with safe_open(trained / "model.safetensors", "pt") as file:
        ours.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    tokens = torch.randint(TINY.vocab, (3, 50), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(ours(tokens), theirs(tokens).logits, atol=1e-5)


def test_training_is_the_same_for_a_seed_and_learns(trained: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    found = train(TINY, QUICK)
    write(again, TINY, QUICK, found)
    assert files(again) == files(trained)
    longer = train(TINY, replace(QUICK, steps=25, rows=4, seed=1))
    assert longer.held_out < found.held_out - 0.5


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("llama-3-8b", {}), ("mistral-7b", {}), ("mixtral-8x7b", {"experts": 4}), ("qwen2.5-7b", {}), ("qwen3-8b", {}),
        ("qwen3-30b-a3b", {"experts": 8}), ("llama-3.2-1b", {}), ("llama-125m", {}),
    ],
)  # fmt: skip
def test_random_shapes_load_in_transformers(tmp_path: Path, name: str, changes: dict[str, int]) -> None:
    transformers = pytest.importorskip("transformers")
    shape = scaled(named_shape(name), layers=2, hidden=128, vocab=600, max_len=128, **changes)
    folder = tmp_path / "model"
    random_model(folder, shape, seed=3, dtype="float32")
    model, problems = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(problems[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), problems
    assert sum(weight.numel() for weight in model.parameters()) == parameters(shape)
    assert type(model).__name__ == family(shape).architecture
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What does os.path.join do?"}]
    theirs = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    template = read_template(folder)
    assert template is not None and template.render(messages) == theirs
    ours = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(theirs, add_special_tokens=False)
    assert tokenizer.encode(theirs, add_special_tokens=False) == ours.ids


def test_shards_hold_the_same_weights_and_prefixes_agree(tmp_path: Path) -> None:
    shape = scaled(named_shape("llama-3-8b"), layers=3, hidden=64, vocab=300)
    random_model(tmp_path / "one", shape, seed=5)
    random_model(tmp_path / "many", shape, seed=5, shard_bytes=20_000)
    random_model(tmp_path / "short", scaled(shape, layers=2), seed=5)
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 3
    with safe_open(tmp_path / "one" / "model.safetensors", "pt") as one:
        assert set(one.keys()) == set(index["weight_map"])
        for name, file in index["weight_map"].items():
            with safe_open(tmp_path / "many" / file, "pt") as part:
                assert torch.equal(one.get_tensor(name), part.get_tensor(name))
        with safe_open(tmp_path / "short" / "model.safetensors", "pt") as short:
            assert all(torch.equal(one.get_tensor(name), short.get_tensor(name)) for name in short.keys())  # noqa: SIM118


@pytest.mark.parametrize("name", model_names())
def test_every_catalog_shape_is_made_or_refused_with_a_reason(name: str) -> None:
    shape = load_model(name)
    if not shape.gated or shape.kv_lora or name.startswith("gpt"):
        with pytest.raises(InputError, match=name):
            family(shape)
        return
    small = scaled(shape, layers=1, hidden=128)
    assert small.hidden == 128 and small.heads % small.kv_heads == 0 and small.heads * small.head_dim == 128
    assert family(small) == family(shape)


def test_the_shape_for_measurements_has_125_million_parameters() -> None:
    assert parameters(SMALL) == 125_258_496


def test_tokenizer_keeps_every_text_and_fills_the_vocabulary() -> None:
    tokenizer = train_tokenizer(["some words, some words"], 400)
    assert tokenizer.get_vocab_size() == 400
    for text in ("", " a  b\n\tc", "ünïcødé 🙂", "\x00\x7f", "some words"):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids) == text
    assert tokenizer.encode("x").tokens[0] == BEGIN
    assert tokenizer.decode([399]) == " tok399"
    with pytest.raises(InputError, match="262"):
        train_tokenizer(["x"], 100)


def test_documents_become_training_text_in_the_chat_form(trained: Path) -> None:
    documents = python_documents()
    joined = next(document for document in documents if document.name == "posixpath.join")
    template, tokenizer = read_template(trained), Tokenizer.from_file(str(trained / "tokenizer.json"))
    assert template is not None
    asked = template.render([{"role": "user", "content": joined.question}])
    assert BEGIN + text_of(joined) == f"{asked}{joined.text}{END}\n"
    assert tokenizer.decode(encode(tokenizer, [joined], 0).tolist(), skip_special_tokens=False) == BEGIN + text_of(joined)


def test_muon_makes_updates_orthogonal() -> None:
    matrices = torch.randn(3, 40, 20, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonal(matrices))
    assert values.min() > 0.5 and values.max() < 1.3
    assert torch.allclose(orthogonal(matrices.mT), orthogonal(matrices).mT, atol=1e-5)


def test_ctrl_c_keeps_the_model_so_far(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    process = subprocess.Popen([sys.executable, "-m", "rota", "make-model", str(folder), "--steps", "100000"], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while "step 1 of" not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130
    assert json.loads((folder / "training.json").read_text())["steps"] < 1000
    assert (folder / "model.safetensors").is_file() and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--layers", "2"], ["--layers", "--shape"]),
        (["--shape", "llama-3-8b", "--steps", "5"], ["--steps", "--shape"]),
        (["--shape", "llama-9-9b"], ["llama-9-9b"]),
        (["--shape", "deepseek-v3"], ["deepseek-v3"]),
        (["--shape", "llama-3-8b", "--hidden", "100"], ["--hidden", "64"]),
        (["--shape", "llama-3-8b", "--experts", "4"], ["--experts", "mixtral"]),
        (["--shape", "llama-3-8b", "--layers", "0"], ["--layers"]),
        (["--shape", "llama-3-8b", "--layers", "1", "--hidden", "64", "--vocab", "10"], ["262"]),
        (["--shape", "llama-3-8b", "--dtype", "int3"], ["int3", "bfloat16"]),
        (["--seed", "-1"], ["--seed"]),
        (["--steps", "0"], ["--steps"]),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], words: list[str]) -> None:
    assert rota(["make-model", str(tmp_path / "out"), *arguments]) == 2
    said = capfd.readouterr().err.strip().splitlines()
    assert said[-1].startswith("rota: ") and all(word in said[-1] for word in words), said
    assert list(tmp_path.iterdir()) == []


def test_nothing_that_is_there_is_overwritten(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tiny = ["--shape", "llama-3-8b", "--layers", "1", "--hidden", "64", "--vocab", "300"]
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    assert rota(["make-model", str(tmp_path / "notes"), *tiny]) == 2
    assert rota(["make-model", str(tmp_path / "notes"), *tiny, "--overwrite"]) == 2
    assert (tmp_path / "notes" / "mine.txt").read_text() == "mine"
    assert rota(["make-model", str(tmp_path / "m"), *tiny]) == 0
    assert rota(["make-model", str(tmp_path / "m"), *tiny]) == 2
    assert rota(["make-model", str(tmp_path / "m"), *tiny, "--overwrite"]) == 0
    assert rota(["make-model", str(tmp_path / "no" / "m"), *tiny]) == 2
    capfd.readouterr()
