"""`rota streams`: what it prints, and one clear line for what people get wrong."""

import json

import pytest

from rota.cli.main import run

ON = ["streams", "--model", "qwen2.5-vl-7b", "--device", "a100-80g"]


def test_json_has_a_row_per_discipline_and_number_of_devices(capfd):
    assert run([*ON, "--frames", "6", "--frame-interval", "0.04", "--group-tokens", "2", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    rows = {(row["discipline"], row["devices"]): row for row in found["rows"]}
    assert set(rows) == {(name, devices) for name in ("interleave", "group-decoupled") for devices in (1, 2)}
    assert found["deadline"] == 0.04
    assert rows["group-decoupled", 2]["makespan"] < rows["interleave", 2]["makespan"]
    for row in rows.values():
        assert 0 < row["delay_p50"] <= row["delay_p99"]
        assert row["frames_per_second"] * row["makespan"] == pytest.approx(6)


def test_text_shows_the_deadline_only_where_there_is_one(capfd):
    assert run([*ON, "--frames", "3"]) == 0
    assert "within 0.5 s" in capfd.readouterr().out
    assert run([*ON, "--frames", "3", "--frame-interval", "0"]) == 0
    assert "within" not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--sessions", "0"], "sessions must be at least 1"),
        (["--frame-tokens", "many"], "--frame-tokens: 'many' is not a quantity"),
        (["--deadline", "0"], "--deadline must be a positive"),
        (["--frame-interval", "-1"], "frame_interval must be 0 or a positive"),
        (["--frames", "3000"], "more than the model's 128000; give fewer or smaller frames"),
        (["--max-num-batched-tokens", "0"], "max_num_batched_tokens must be a whole number of at least 1"),
        (["--max-num-seqs", "99", "--max-num-batched-tokens", "10"], "raise the first or lower the second"),
        (["--rate", "nan"], "rate must be 0 or a positive"),
        (["--model", "no-such-model"], "no-such-model"),
    ],
)
def test_bad_input_ends_in_one_line(arguments, says, capfd):
    assert run([*ON, *arguments]) == 2
    out, err = capfd.readouterr()
    assert says in err
    assert err.count("\n") == 1
    assert not out
