"""benchmarks/shop.py: what a killed run leaves, what is not taken up again, and when a bar holds."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from rota.contracts.shop import Budget, Outcome, Problem
from rota.mechanisms.shop.checker import check
from rota.policies.solvers.single_machine import Decomposition
from rota.studies.solve_table import Row
from rota.workload.shop.build import job_shop
from tests.conftest import ROOT
from tests.shop.test_cpsat import FT06


@pytest.fixture(scope="module")
def shop() -> ModuleType:
    spec = importlib.util.spec_from_file_location("shop_benchmark", ROOT / "benchmarks" / "shop.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def command(shop: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(shop, "warm_up_shops", lambda: 0)
    return [str(tmp_path), "--classes", "tardiness", "--sample", "4", "--wall", "20", "--log", str(tmp_path / "log.jsonl")]


def test_a_killed_run_goes_on_and_shows_its_bar(
    shop: ModuleType, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []
    solve = Decomposition.solve

    def counted(self: Decomposition, problem: Problem, budget: Budget, *rest: object) -> Outcome:
        asked.append(f"{problem.name} {budget.seed}")
        if asked == ["100-0 0", "100-30 0", "300-0 0"]:
            raise KeyboardInterrupt
        return solve(self, problem, budget, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Decomposition, "solve", counted)
    assert shop.main(command) == 130
    said = capsys.readouterr()
    assert "2 instances, 2 runs each of 20 s" in said.out and "so far (too few)" in said.out
    assert "the same command goes on" in said.err and "2/4, about" in said.err
    path = Path(command[-1])
    text = path.read_text()
    path.write_text(text + '{"instance": "tardiness/300-0", "sol')  # killed within a line
    assert shop.main(command) == 0
    assert asked[3:] == ["300-0 0", "300-30 0"]
    assert path.read_text().startswith(text) and len([json.loads(line) for line in path.read_text().splitlines()]) == 5
    assert shop.main([*command, "--seeds", "2"]) == 0
    assert asked[5:] == ["100-0 1", "100-30 1", "300-0 1", "300-30 1"]


def test_rows_of_other_settings_are_refused(shop: ModuleType, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert shop.main([*command, "--sample", "1"]) == 0
    capsys.readouterr()
    assert shop.main([*command, "--wall", "10"]) == 2
    assert "was made with other settings" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        shop.main([*command, "--sample", "0"])


def test_bars(shop: ModuleType) -> None:
    def runs(**gaps: list[int | None]) -> list[dict[str, Row]]:
        several = zip(*gaps.values(), strict=True)
        return [
            {
                name: Row(f"x/{k}", name, "feasible", None if gap is None else 100 + gap, ub=100)
                for name, gap in zip(gaps, one, strict=True)
            }
            for k, one in enumerate(several)
        ]

    bars = {kind: chosen.bar for kind, chosen in shop.CLASSES.items()}
    assert bars["job-shop"](runs(**{"portfolio": [6, 0], "cp-sat": [10, 0], "pyjobshop": [5, 9]}))[1]
    assert not bars["job-shop"](runs(**{"portfolio": [8, 0], "cp-sat": [10, 0], "pyjobshop": [20, 0]}))[1]
    assert bars["project"](runs(**{"portfolio": [3, 3], "cp-sat": [2, 4]}))[1]
    assert not bars["project"](runs(**{"portfolio": [3, None], "cp-sat": [2, 3]}))[1]
    rules: dict[str, list[int | None]] = {rule: [40] for rule in shop.RULES}
    assert bars["blocking"](runs(portfolio=[15], **{**rules, "LOR": [30]}))[1]
    assert not bars["blocking"](runs(portfolio=[16], **{**rules, "LOR": [30]}))[1]

    def proofs(**seconds: float) -> list[dict[str, Row]]:
        return [{"decomposition": Row(f"tardiness/{name[1:]}-0", "decomposition", "optimal", 1, 1, wall)} for name, wall in seconds.items()]

    assert bars["tardiness"](proofs(n100=0.9, n300=29))[1]
    assert not bars["tardiness"](proofs(n100=1.1, n300=2))[1]
    assert not bars["tardiness"]([{"decomposition": Row("tardiness/100-0", "decomposition", "feasible", 1, 0, 0.1)}])[1]


def test_pyjobshop_is_given_the_same_problem(shop: ModuleType) -> None:
    pytest.importorskip("pyjobshop")
    problem = job_shop(FT06, 6)
    outcome = shop.PyJobShop().solve(problem, Budget(20, 1))
    assert (outcome.status, outcome.objective) == ("optimal", (55,))
    assert check(problem, outcome.schedule, objective=outcome.objective).ok
