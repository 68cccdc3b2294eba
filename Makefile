# setup: .venv with the pinned lock; demo: train the quickstart; check: formatting, types and the quick tests, in a minute;
# test, lint: what CI runs; lock: resolve anew (needs uv).
# VARIANT=gpu installs the CUDA builds. TORCH_INDEX=https://download.pytorch.org/whl/cpu gets torch's CPU build where the
# configured package index does not have it. PYTHON names the interpreter (3.11 or 3.12).
PYTHON ?= python3.11
VENV ?= .venv
VARIANT ?= cpu
TORCH_INDEX ?=
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(VARIANT)

.PHONY: setup demo check test lint lock
setup: $(STAMP)

$(STAMP): lock/$(VARIANT).txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-deps $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -r lock/$(VARIANT).txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	rm -f $(VENV)/.installed-* && touch $@

demo: setup
	$(BIN)/causal-lm-router train experiment=quickstart

# Types are checked beside the tests, each in one process: two cores are enough.
check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy & types=$$!; $(BIN)/python -m pytest --quiet -m 'not slow' && wait $$types

test: setup
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

lock:
	uv pip compile pyproject.toml --extra cpu --extra launchers --extra dev --python-version 3.11 --quiet --no-header --no-annotate $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX) --index-strategy unsafe-best-match) | sed 's/+cpu$$//' > lock/cpu.txt
	uv pip compile pyproject.toml --extra gpu --extra launchers --extra dev --python-version 3.11 --quiet --no-header --no-annotate > lock/gpu.txt
