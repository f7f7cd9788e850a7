"""Whether the packages are there that tests of the server need (extra ``dev-engine``); without them those tests are not collected."""

from __future__ import annotations

from importlib.util import find_spec

PACKAGES = ("torch", "safetensors", "tokenizers", "fastapi", "uvicorn", "jinja2", "prometheus_client", "aiohttp", "httpx", "openai", "schemathesis")


def missing() -> list[str]:
    """Those that are not."""
    return [package for package in PACKAGES if find_spec(package) is None]
