"""`rota calibrate MODEL_DIR`, `--costs` and `rota bench --engine`, as a person meets them."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from rota.cli.main import run
from rota.cost.measured import Measured
from rota.cost.steps import RATES, Check, StepFit
from rota.mechanisms.engine.log import Stepped, write_log

TRACE = "poisson:rate=20,prompt=20,output=5,n=30"
LLAMA = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 300, "max_position_embeddings": 256, "rms_norm_eps": 1e-5,
    "torch_dtype": "float32", "tie_word_embeddings": False,
}  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A model directory as far as its description goes."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(LLAMA))
    return tmp_path / "model"


@pytest.fixture
def costs(tmp_path: Path) -> Path:
    """A file of costs."""
    knots = np.array([1, 64, 512])
    fit = StepFit(knots, 1e-5 * knots, knots, 1e-6 * knots, dict.fromkeys(RATES, 1e-7), 3, (Check("all", 20, 0.03, 0.05),))
    Measured("tiny", fit, 500, 16, 256, {"device": "cpu", "threads": 1, "clock": "wall"}).write(tmp_path / "costs.json")
    return tmp_path / "costs.json"


def line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a person is told."""
    text = capsys.readouterr().err
    assert text.startswith("rota: ") and text.count("\n") == 1
    return text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: is no model directory"),
        (["{folder}"], "has no config.json"),
        (["{model}", "-o", "{folder}/no/where.json"], "does not exist"),
        (["{model}", "-o", "{folder}"], "is a folder"),
        (["{model}", "--rounds", "0"], "--rounds must be positive"),
        (["{model}", "--budget", "nan"], "--budget must be positive"),
        (["{model}", "--max-chunk", "3"], "--max-chunk must be at least 16"),
        (["{model}", "--policy", "sarathi,orca"], "several policies"),
        (["{model}", "--policy", "nonsense"], "nonsense"),
        (["{model}", "--from-log", "{folder}/no.jsonl"], "no.jsonl: cannot be read"),
        (["{model}", "--from-log", "{model}/config.json"], "line 1 is not an entry"),
        (["a.csv", "--from-log", "{folder}/no.jsonl"], "needs one model directory"),
        (["a.csv"], "no device given"),
        (["a.csv", "--device", "h100"], "a.csv"),
    ],
)
def test_what_cannot_be_measured_is_one_clear_line(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    filled = [argument.format(model=config, folder=tmp_path) for argument in arguments]
    assert run(["calibrate", *filled]) == 2
    assert message in line(capsys)


def test_a_log_becomes_costs_that_compare_takes(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = np.random.default_rng(0)
    entries, now = [], 0.0
    for _ in range(300):
        n, new = int(draw.integers(0, 30)), int(draw.integers(2) * draw.integers(0, 200))
        n = max(n, 0 if new else 1)
        seconds = 2e-3 + 3 * 1e-5 * (n + new) + 1e-4 * n
        chunks = ((0, new),) if new else ()
        entries.append(Stepped(now, now + seconds, n, 50 * n, chunks, (0, 3) if new else (0, 0), len(chunks)))
        now += seconds
    log, out = tmp_path / "steps.jsonl", tmp_path / "mine.json"
    write_log(entries, log)
    assert run(["calibrate", str(config), "--from-log", str(log), "-o", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {check["kind"] for check in told["checks"]} == {"prefill", "decode", "mixed", "all"}
    assert told["checks"][-1]["error"] < 0.02 and told["source"] == "measured" and told["complete"]
    content = json.loads(out.read_text())
    assert content["engine"] == {"blocks": (1 << 30) // (2 * 3 * 2 * 16 * 4 * 16), "block_size": 16, "max_len": 256, "n_layers": 3}
    assert run(["compare", TRACE, "--costs", str(out), "--policy", "sarathi,vllm-v1", "--seeds", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["conditions"]["costs"]["source"].startswith("measured")
    assert "hold-out" in str(found["conditions"]["costs"]["mean relative error"])
    assert found["policies"]["sarathi"]["nominal"]["energy"] is None


def test_too_short_a_log_is_refused(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_log([Stepped(0.0, 0.1, 1, 10, (), (0, 0), 0)], tmp_path / "steps.jsonl")
    assert run(["calibrate", str(config), "--from-log", str(tmp_path / "steps.jsonl")]) == 2
    assert "too few" in line(capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--costs", "no.json"], "no.json: cannot be read"),
        (["--costs", "{costs}", "--model", "llama-3-8b"], "leave out --model"),
        (["--costs", "{costs}", "--max-model-len", "10"], "leave out --max-model-len"),
        (["--costs", "{config}/config.json"], "no file of measured costs"),
        ([], "no model given"),
    ],
)
def test_costs_and_what_contradicts_them(
    config: Path, costs: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run(["simulate", TRACE, "--policy", "sarathi", *(a.format(costs=costs, config=config) for a in arguments)]) == 2
    assert message in line(capsys)


@pytest.mark.parametrize("verb", [["simulate", "--policy", "sarathi"], ["capacity", "--slo", "ttft=1", "--policy", "sarathi"]])
def test_measured_costs_are_a_deployment(costs: Path, capsys: pytest.CaptureFixture[str], verb: list[str]) -> None:
    assert run([verb[0], TRACE, "--costs", str(costs), *verb[1:], "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told.get("deployment", "tiny on cpu, 1 thread (measured)") == "tiny on cpu, 1 thread (measured)"


def test_a_trace_that_is_too_long_for_the_measured_engine(costs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = "poisson:rate=20,prompt=300,output=5,n=3"
    assert run(["simulate", long, "--costs", str(costs), "--policy", "sarathi"]) == 2
    assert "256" in line(capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine", "nowhere"], "nowhere: is no model directory"),
        (["--policy", "sarathi"], "go with --engine or --compare-sim"),
        (["--html", "x.html"], "go with --engine or --compare-sim"),
        (["--engine", "{config}", "--compare-sim", "no.json"], "no.json: cannot be read"),
        (["--engine", "{config}", "--compare-sim", "{costs}"], "do not say"),
        (["--engine", "{config}", "--compare-sim", "{costs}", "--clock", "cpu"], "does not go with costs of wall time"),
        (["--engine", "{config}", "--chat"], "are for servers"),
        (["--compare-sim", "{costs}", "--policy", "sarathi,orca"], "runs one policy"),
    ],
)
def test_what_bench_cannot_do_is_one_clear_line(
    config: Path, costs: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run(["bench", TRACE, *(a.format(costs=costs, config=config) for a in arguments)]) == 2
    assert message in line(capsys)


@pytest.mark.skipif(find_spec("torch") is None or find_spec("safetensors") is None, reason="needs PyTorch (extra engine)")
def test_from_a_model_directory_to_predicted_and_measured_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, costs, page = tmp_path / "model", tmp_path / "costs.json", tmp_path / "page.html"
    shape = ["--shape", "llama-125m", "--layers", "2", "--hidden", "64", "--vocab", "300", "--max-model-len", "128"]
    assert run(["make-model", str(model), *shape]) == 0
    options = ["--clock", "cpu", "--threads", "1", "--rounds", "1", "--max-chunk", "32", "--kv-cache-memory", "0.02"]
    assert run(["calibrate", str(model), "-o", str(costs), *options]) == 0
    out = capsys.readouterr().out
    assert "held out" in out and "Costs: " in out
    assert not Path(f"{costs}.partial").exists()
    trace = "poisson:rate=30,prompt=8..40,output=3..12,n=20"
    command = ["bench", trace, "--engine", str(model), "--compare-sim", str(costs), "--policy", "sarathi,layered"]
    assert run([*command, "--json"]) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert [found["policy"] for found in runs] == ["sarathi", "layered"]
    for found in runs:
        assert found["figures"]["finished"] == 20 and found["conditions"]["clock"] == "cpu"
        assert {cell["metric"] for cell in found["comparison"]} > {"ttft_mean", "tbt_p90", "e2e_p99", "output_throughput"}
        ratios = {cell["metric"]: cell["predicted"] / cell["measured"] for cell in found["comparison"]}
        assert all(0.2 < ratio < 5 for metric, ratio in ratios.items() if "p99" not in metric), (ratios, costs.read_text())
        assert 0.2 < found["step_ratio"] < 5
    assert run([*command, "--html", str(page)]) == 0
    assert "predicted" in capsys.readouterr().out and "sarathi (measured)" in page.read_text()
