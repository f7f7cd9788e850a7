import json
import os

import polars as pl
import pytest

from rota.errors import InputError
from rota.files import atomic, check_writable, write_text
from rota.results.frame import requests_frame, summary_frame, write_frame
from rota.results.slo import SLO
from rota.results.summary import summarise

from .fifo import fifo_run


def test_frames_hold_what_the_run_holds():
    run = fifo_run(30)
    run.output[4] = 1
    frame = requests_frame(run)
    assert frame.height == 30
    assert frame["ttft"].to_list() == pytest.approx(run.first_token - run.arrival)
    assert frame["tpot"][4] is None
    assert set(frame["policy"]) == {"fifo"}
    summaries = summary_frame([run, fifo_run(30, seed=1)], SLO.parse("ttft=1"))
    assert summaries["seed"].to_list() == [0, 1]
    assert summaries["ttft_p99"][0] == summarise(run)["ttft_p99"]


@pytest.mark.parametrize("ending", ["parquet", "csv", "json", "jsonl"])
def test_files_read_back_equal(tmp_path, ending):
    frame = requests_frame(fifo_run(20)).drop("tpot")
    path = tmp_path / f"requests.{ending}"
    write_frame(frame, path)
    read = {"parquet": pl.read_parquet, "csv": pl.read_csv, "json": pl.read_json, "jsonl": pl.read_ndjson}[ending]
    assert read(path).equals(frame)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("name", ["missing/r.csv", ".", "r.xlsx", "r"])
def test_bad_targets_are_refused(tmp_path, name):
    with pytest.raises(InputError):
        write_frame(requests_frame(fifo_run(3)), tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_check_writable_leaves_no_trace(tmp_path):
    (tmp_path / "old.html").write_text("old")
    check_writable(tmp_path / "old.html")
    check_writable(tmp_path / "new.html")
    assert os.listdir(tmp_path) == ["old.html"]
    assert (tmp_path / "old.html").read_text() == "old"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot write"):
        check_writable(tmp_path / "x.csv")
    tmp_path.chmod(0o700)


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "report.json"
    write_text(path, '{"old": 1}')

    def interrupted():
        with atomic(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert json.loads(path.read_text()) == {"old": 1}
    assert os.listdir(tmp_path) == ["report.json"]


def test_written_files_have_ordinary_permissions(tmp_path):
    write_text(tmp_path / "a", "x")
    (tmp_path / "b").write_text("x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode
