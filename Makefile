# setup: .venv with the pinned lock; demo: train the quickstart; check: formatting, types and the quick tests, in a minute;
# test, lint: what CI runs; lock: resolve anew (needs uv); bench DATA=path/to/llmrouter: against peers, in an environment
# of its own, minutes to an hour; reproduce DATA=path/to/data: what experiments/README.md has, in under four hours.
# VARIANT=gpu installs the CUDA builds. TORCH_INDEX=https://download.pytorch.org/whl/cpu gets torch's CPU build where the
# configured package index does not have it. PYTHON names the interpreter (3.11 or 3.12).
PYTHON ?= python3.11
VENV ?= .venv
VARIANT ?= cpu
TORCH_INDEX ?=
BIN := $(VENV)/bin
# Peers of the benchmarks, over the packages of $(VENV): they pin others of their own.
PEERS ?= outputs/bench/venv
DATA ?=
QUERIES ?= 96
STAMP := $(VENV)/.installed-$(VARIANT)

.PHONY: setup demo check test lint lock bench reproduce
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

$(PEERS)/.installed: experiments/benchmarks/peers.txt | setup
	test -x $(PEERS)/bin/python || $(BIN)/python -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet --no-deps -r experiments/benchmarks/peers.txt
	# What it lacks it finds in the project and in the packages of $(VENV).
	{ echo $(CURDIR)/src; cd $(VENV)/lib/python*/site-packages && pwd; } > $(PEERS)/project.pth
	mv $(PEERS)/project.pth $(PEERS)/lib/python*/site-packages/
	touch $@

# Writes training.json, training.md and routing.json into outputs/bench.
bench: $(PEERS)/.installed
	@test -n "$(DATA)" || { echo "DATA must be the folder of LLMRouter's data, as in make bench DATA=path/to/llmrouter"; exit 2; }
	$(PEERS)/bin/python experiments/benchmarks/training.py experiment=llmrouter_cpu data.path=$(DATA) --queries $(QUERIES) --output outputs/bench
	$(PEERS)/bin/python experiments/benchmarks/routing.py experiment=llmrouter_cpu data.path=$(DATA) --queries $(QUERIES) --output outputs/bench/routing.json

# Two runs at a time, a thread each; the same command goes on after a stop.
reproduce: setup
	@test -n "$(DATA)" || { echo "DATA must be the folder of the routing data, as in make reproduce DATA=path/to/data"; exit 2; }
	$(BIN)/python experiments/reproduce.py outputs/reproduce --data $(DATA)
