"""The walls of the house, and the promise that starting up costs nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("numpy", "numba", "polars", "plotly")


def test_imports_keep_to_floors_and_walls() -> None:
    from importlinter.cli import lint_imports

    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_logo=True) == 0


@pytest.mark.parametrize("module", ["rota", "rota.cli.main"])
def test_start_up_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_of_the_package_exists() -> None:
    import rota

    for name in rota.__all__:
        assert getattr(rota, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = rota.nonsense


def test_no_module_grows_beyond_one_sitting() -> None:
    long = {str(p.relative_to(ROOT)): n for p in (ROOT / "src").rglob("*.py") if (n := len(p.read_text().splitlines())) > 450}
    assert long == {}


def test_compiled_code_is_renewed_when_a_source_it_calls_changes(tmp_path: Path) -> None:
    import shutil

    package = tmp_path / "rota"
    shutil.copytree(ROOT / "src" / "rota", package, ignore=shutil.ignore_patterns("__pycache__"))
    code = "from rota.contracts.columns import COMPUTED; from rota.policies.batching.compiled import begin_plan as f; import numpy as np; " \
           "out = np.zeros(20, np.int64); f(out, 1, 2, 3, 4); print(sum(f.stats.cache_hits.values()))"  # fmt: skip
    hits = []
    for touched in (None, None, package / "cost" / "kernel.py"):
        if touched:
            touched.write_text(touched.read_text() + "\n# changed\n")
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(tmp_path)})
        hits.append(int(done.stdout))
    assert hits == [0, 1, 0]
