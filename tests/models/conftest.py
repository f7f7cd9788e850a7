"""These tests need packages of an extra."""

from __future__ import annotations

from tests.extras import missing

collect_ignore_glob = ["test_*.py"] if missing() else []
