# `make repro` and `make test` set up all that they need; what is up to date is left alone.
PYTHON ?= python3
ROUNDS ?= 100
SEED ?= 0
BIN := .venv/bin
DEBIAN := qemu-user chromium chromium-driver postgresql iproute2

# uv installs where it is there, and pip elsewhere; uv reads none of pip's settings. Nothing is compiled that may never be
# imported: each module is when it is.
ifneq ($(shell uv --version 2> /dev/null),)
  VENV := uv venv --quiet --seed --allow-existing --python $(PYTHON) .venv
  INSTALL := uv pip install --quiet --python $(BIN)/python
  ifdef PIP_INDEX_URL
    export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
  endif
  ifdef PIP_FIND_LINKS
    export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
  endif
else
  VENV := $(PYTHON) -m venv .venv
  INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
endif
INSTALL += --constraint requirements.txt --editable

.PHONY: setup setup-dev in-git repro test test-slow soak check ui tutorial dist bench lock
.DEFAULT_GOAL := repro
.NOTPARALLEL:

setup: .venv/.installed          ## install what the pipeline needs

setup-dev: .venv/.installed-dev  ## install what all targets need, but the peers of `make bench`

.venv/.installed-ui: EXTRA := [ui]
.venv/.installed-dev: EXTRA := [dev]
.venv/.installed-dev: WITH := .venv/.installed-ui
.venv/.installed .venv/.installed-ui .venv/.installed-dev: pyproject.toml requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=...")'
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(VENV)
	$(INSTALL) '.$(EXTRA)'
	@touch .venv/.installed $(WITH) $@

repro: in-git setup ## run the pipeline: whatever changed, and what depends on it
	@$(BIN)/surefoot check
	$(BIN)/dvc repro

# DVC works in Git alone. That another user owns the repository doesn't hinder it; `surefoot check` tells of that.
in-git:
	@command -v git > /dev/null || { echo "git isn't installed; DVC needs it, and so does the record of each run" >&2; exit 2; }
	@said=$$(LC_ALL=C git rev-parse --git-dir 2>&1) || case $$said in *"dubious ownership"*) ;; *) \
	  echo "$$said" >&2; \
	  echo "This directory is no clone, a ZIP download perhaps. Make a repository of it, then try again:" >&2; \
	  echo "    git init --quiet && git add --all && git commit --quiet --message start" >&2; exit 2;; esac

# loadfile: the tests of a file share what was expensive to make. No reordering: pipeline/ takes longest, so it's first.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: setup-dev         ## run the tests
	$(PYTEST) --durations 15

test-slow: setup-dev    ## run the tests that take minutes: other processors (qemu-user), MLflow's pages in a browser, a server with PostgreSQL, two machines
	@{ command -v qemu-x86_64 && command -v chromedriver && command -v ip && ls /usr/lib/postgresql/*/bin/postgres; } > /dev/null 2>&1 \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(DEBIAN); } \
	  || echo "some of these aren't installed, so the tests that need them are skipped; on Debian: apt-get install $(DEBIAN)" >&2
	$(PYTEST) -m slow

soak: setup-dev         ## kill, damage, fill up, cut off: ROUNDS=100 SEED=0
	$(BIN)/python -m tests.soak --rounds $(ROUNDS) --seed $(SEED)

check: setup-dev        ## lint, types, import contract
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

ui: .venv/.installed-ui ## serve the MLflow UI on 127.0.0.1, and open it on the latest comparison; PORT=5001 for another port
	@$(BIN)/surefoot ui $(if $(PORT),--port $(PORT))

tutorial: setup-dev     ## run every command of docs/tutorial.md in a copy, and compare its output and figures; UPDATE=1 writes what differs
	$(BIN)/python -m tutorial $(if $(UPDATE),--update)

dist: setup-dev         ## build the source distribution and the wheel into dist/
	rm -rf dist
	$(BIN)/python -m build --outdir dist

bench: setup-dev        ## print the benchmark table; its peers are installed first
	$(INSTALL) '.[bench]'
	$(BIN)/python -m benchmarks

lock:                   ## resolve requirements.txt anew from pyproject.toml
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --editable '.[dev,bench]'
	.venv-lock/bin/python -m pip list --format freeze --exclude-editable | grep -v '^pip==' | sed 's/+cpu$$//' > requirements.txt
	rm -rf .venv-lock
