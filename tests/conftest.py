"""What all tests share: where reference data lies, and how hard Hypothesis tries."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent

# a shell that starts something in the background lets it ignore Ctrl-C, and so would the tests of Ctrl-C
signal.signal(signal.SIGINT, signal.default_int_handler)

# no deadline: the first example may compile kernels
settings.register_profile(
    "rota", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=bool(os.environ.get("CI"))
)
settings.load_profile("rota")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data (environment variable ROTA_SHARED, default ``../shared``); skips where it is absent."""
    folder = Path(os.environ.get("ROTA_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"reference data not found at {folder}; set ROTA_SHARED to their folder")
    return folder
