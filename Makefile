# Targets: demo, demo-serve (trains a small model and serves it), test, lint, bench, readme (remakes its picture and table), install, clean. Everything runs in .venv, which make creates by itself.

# The first interpreter on PATH that really runs and is new enough (a name alone can be a dead shim).
SYSTEM_PYTHON := $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	$$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { command -v $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEV := $(VENV)/.ready-dev
ENGINE := $(VENV)/.ready-engine
DEMO_MODEL := demo-model
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
JOBS ?= 2
# What tests need. EXTRAS=dev leaves out PyTorch, and the tests of the engine with it.
EXTRAS ?= dev,dev-engine
TORCH ?= torch==2.13.0

.PHONY: demo demo-serve test lint bench readme install clean
.DEFAULT_GOAL := demo

demo: $(READY)
	$(BIN)/rota demo

demo-serve: $(ENGINE)
	@test -f $(DEMO_MODEL)/config.json || $(BIN)/rota make-model $(DEMO_MODEL)
	$(BIN)/python scripts/demo_serve.py $(DEMO_MODEL)

test: lint
	$(BIN)/python -m pytest -n $(JOBS)

lint: $(DEV)
	$(BIN)/ruff check src tests benchmarks scripts
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: $(READY)
	$(BIN)/python benchmarks/speed.py

readme: $(READY)
	$(BIN)/python scripts/readme.py

install: $(READY)

$(BIN)/python:
	@test -n "$(SYSTEM_PYTHON)" || { echo "rota needs Python 3.11 or newer with the venv module; install it and run make again" >&2; exit 1; }
	$(SYSTEM_PYTHON) -m venv $(VENV)

$(READY): pyproject.toml $(BIN)/python
	$(PIP) -e .
	$(BIN)/python -m rota.warmup
	@touch $@

$(DEV): pyproject.toml $(BIN)/python
	case '$(EXTRAS)' in *engine*) $(PIP) $(TORCH);; esac
	$(PIP) -e '.[$(EXTRAS)]'
	$(BIN)/python -m rota.warmup
	@touch $@ $(READY)

$(ENGINE): pyproject.toml $(BIN)/python
	$(PIP) -e '.[engine]'
	@touch $@

clean:
	rm -rf $(VENV) $(DEMO_MODEL) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
