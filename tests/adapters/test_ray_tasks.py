"""Studies on a Ray cluster: the same answers, one clear line when it is not there or lost, and Ctrl-C keeps what it has."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time

import pytest

from rota.cli.main import run
from rota.errors import InputError, PlanRejected, RotaError
from rota.studies.replicate import Interrupted, in_parallel
from tests.conftest import ROOT

ON = ["--model", "llama-3-8b", "--device", "a100-80g"]


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("arrival,prompt,output\n" + "".join(f"{i * 0.2},{100 + 7 * i},{5 + 3 * i % 40}\n" for i in range(40)))
    return str(path)


@pytest.mark.parametrize(("address", "why"), [
    ("127.0.0.1:1", "no Ray cluster at 127.0.0.1:1"), ("ray://127.0.0.1:1", "no Ray cluster at ray://127.0.0.1:1"),
    ("nonsense", "--ray takes local, auto, HOST:PORT or ray://HOST:PORT"), ("auto", "no Ray cluster at auto"),
])  # fmt: skip
def test_no_cluster_is_one_line(trace, capsys, monkeypatch, address, why):
    pytest.importorskip("ray", reason="the Ray adapter needs Ray (extra ray)")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert run(["compare", trace, *ON, "--ray", address]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert why in error


def test_no_ray_is_one_line(trace, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run(["compare", trace, *ON, "--ray", "local"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "pip install 'rota[ray]'" in error


def test_a_study_takes_whatever_runs_its_tasks():
    def backwards(function, items):
        yield from ((i, function(items[i])) for i in reversed(range(len(items))))

    assert list(in_parallel(_square, [1, 2, 3], backwards)) == [(2, 9), (1, 4), (0, 1)]


def _square(x):
    return x * x


def _fail_on_three(x):
    if x == 3:
        raise PlanRejected("I4", "no blocks")
    return x


def _die(x):
    os._exit(9)


def _sleep(x):
    time.sleep(3600 if x else 0)
    return x


def test_another_version_of_rota_on_the_cluster_is_refused(monkeypatch):
    ray = pytest.importorskip("ray", reason="the Ray adapter needs Ray (extra ray)")
    from rota.mechanisms.adapters import ray_tasks

    monkeypatch.setattr(ray_tasks, "version", lambda name: "0.0.1")
    try:
        with pytest.raises(InputError, match=r"install 0\.0\.1, which runs here"):
            ray_tasks.RayTasks("local", 1)
    finally:
        ray.shutdown()


@pytest.fixture(scope="module")
def tasks():
    """One cluster for all that follow, as starting one takes seconds."""
    ray = pytest.importorskip("ray", reason="the Ray adapter needs Ray (extra ray)")
    from rota.mechanisms.adapters.ray_tasks import RayTasks

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    tasks = RayTasks("local", 2)
    yield tasks
    tasks.close()


def test_every_item_comes_back_once_with_its_index(tasks):
    assert sorted(in_parallel(_square, range(7), tasks)) == [(i, i * i) for i in range(7)]
    assert list(in_parallel(_square, [], tasks)) == []


def test_an_error_crosses_the_process_border_with_its_text(tasks):
    with pytest.raises(RotaError, match="rule I4: no blocks"):
        list(in_parallel(_fail_on_three, range(5), tasks))


def test_stopping_early_cancels_what_is_under_way(tasks):
    stream = in_parallel(_sleep, range(3), tasks)
    assert next(stream) == (0, 0)
    stream.close()
    assert sorted(in_parallel(_square, range(3), tasks)) == [(0, 0), (1, 1), (2, 4)]


def test_a_task_that_kills_its_worker_again_and_again_is_an_error(tasks):
    with pytest.raises(RotaError, match="was lost"):
        list(in_parallel(_die, range(1), tasks))


def test_a_comparison_is_the_same_to_the_last_bit(tasks, trace):
    from rota.cost.deployment import Deployment
    from rota.studies.compare import compare
    from rota.workload import load_trace

    deployment, own = Deployment("llama-3-8b", "a100-80g"), load_trace(trace)
    here, there = (compare(own, deployment, ["sarathi", "vllm-v1"], seeds=3, jobs=jobs) for jobs in (1, tasks))
    for label in here.labels:
        for a, b in zip(here.runs[label], there.runs[label], strict=True):
            for name in ("first_scheduled", "first_token", "finish", "max_tbt", "preemptions", "cached", "tbt_histogram"):
                assert getattr(a, name).tolist() == getattr(b, name).tolist()
                assert getattr(b, name).flags.writeable
            assert {k: v for k, v in a.totals.items() if k != "seconds"} == {k: v for k, v in b.totals.items() if k != "seconds"}


def test_an_interrupt_keeps_what_is_complete(tasks, trace):
    from rota.cost.deployment import Deployment
    from rota.studies.compare import compare
    from rota.workload import load_trace

    def stop(done, total, label):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        compare(load_trace(trace), Deployment("llama-3-8b", "a100-80g"), ["sarathi", "orca"], seeds=3, jobs=tasks, progress=stop)
    assert caught.value.partial is None or "incomplete" in caught.value.partial.conditions


# as from a terminal: everybody in the process group gets the signal
ENDLESS = """
import sys
from rota.errors import RotaError
from rota.mechanisms.adapters.ray_tasks import RayTasks
import time

def wait(x):
    time.sleep(3600 if x else 0)
    return x

tasks = RayTasks({address!r}, 2)
try:
    for index, _ in tasks(wait, [0, 1, 1, 1]):
        print("done", index, flush=True)
except KeyboardInterrupt:
    print("stopped", flush=True)
    sys.exit(130)
except RotaError as error:
    print(error, flush=True)
    sys.exit(2)
"""


def test_ctrl_c_ends_a_local_cluster():
    pytest.importorskip("ray", reason="the Ray adapter needs Ray (extra ray)")
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS.format(address="local")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        start_new_session=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "done 0\n"
            os.killpg(process.pid, signal.SIGINT)
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, out) == (130, "stopped\n")


def test_a_cluster_that_dies_is_one_line_within_seconds():
    pytest.importorskip("ray", reason="the Ray adapter needs Ray (extra ray)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {
        "PYTHONPATH": str(ROOT / "src"), "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(24),
    }  # fmt: skip
    start = ["start", "--head", "--block", "--port", port, "--num-cpus", "2", "--include-dashboard", "false", "--temp-dir"]
    with (
        tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder,  # its sockets need a short path
        subprocess.Popen([sys.executable, "-m", "ray.scripts.scripts", *start, folder], stdout=subprocess.DEVNULL, env=environment) as head,
        subprocess.Popen(
            [sys.executable, "-c", WAITING + ENDLESS.format(address=f"127.0.0.1:{port}")], stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, cwd=ROOT, env=environment | {"PORT": port},
        ) as study,
    ):  # fmt: skip
        assert study.stdout is not None
        try:
            assert study.stdout.readline() == "done 0\n"
            head.terminate()  # which ends all that it started
            out, _ = study.communicate(timeout=50)
        finally:
            study.kill()
            head.terminate()
    assert study.returncode == 2
    assert f"the Ray cluster at 127.0.0.1:{port} was lost" in out
    assert out.count("\n") == 1


# the cluster takes seconds to come up
WAITING = """
import os, socket, time
for _ in range(120):
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", int(os.environ["PORT"]))) == 0:
            break
    time.sleep(0.5)
time.sleep(8)
"""
