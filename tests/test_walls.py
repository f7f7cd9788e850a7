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
    # compiled kernels cannot be split freely, because Numba compiles what calls each other together
    long = {str(p.relative_to(ROOT)): n for p in (ROOT / "src").rglob("*.py") if (n := len(p.read_text().splitlines())) > 450}
    assert {name for name in long if not name.endswith("kernel.py")} == set()
