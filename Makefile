# `make repro` and `make test` set up all that they need; what is up to date is left alone.
PYTHON ?= python3
ROUNDS ?= 100
SEED ?= 0
BIN := .venv/bin

.PHONY: setup repro test test-slow soak check ui tutorial bench lock
.DEFAULT_GOAL := repro

setup: .venv/.installed

.venv/.installed: pyproject.toml requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.txt --editable '.[dev]'
	@touch $@

repro: setup        ## run the pipeline: whatever changed, and what depends on it
	@$(BIN)/surefoot check
	$(BIN)/dvc repro

test: setup         ## run the tests
	$(BIN)/python -m pytest

test-slow: setup    ## run the tests that take minutes; with qemu-user also: do other processors compute the same bits?
	@command -v qemu-x86_64 > /dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq qemu-user; } \
	  || echo "qemu-x86_64 is not installed, so no other processor is emulated; on Debian: apt-get install qemu-user" >&2
	$(BIN)/python -m pytest -m slow

soak: setup         ## kill, damage, fill up, cut off: ROUNDS=100 SEED=0
	$(BIN)/python -m tests.soak --rounds $(ROUNDS) --seed $(SEED)

check: setup        ## lint, types, import contract
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

ui: setup           ## open the MLflow UI on 127.0.0.1
	$(BIN)/surefoot ui

tutorial: setup     ## run every command of docs/tutorial.md in a copy, and compare its output and figures; UPDATE=1 writes what differs
	$(BIN)/python -m tutorial $(if $(UPDATE),--update)

bench: setup        ## print the benchmark table; its peers are installed first
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks

lock:               ## resolve requirements.txt anew from pyproject.toml
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --editable '.[dev,bench]'
	.venv-lock/bin/python -m pip list --format freeze --exclude-editable | grep -v '^pip==' | sed 's/+cpu$$//' > requirements.txt
	rm -rf .venv-lock
