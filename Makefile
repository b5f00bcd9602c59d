# Every target makes what it needs in .venv and touches nothing outside this folder.

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# FFCV comes as source alone, and is built with these; nothing else of LayerScope needs them.
FFCV_PACKAGES := g++ pkg-config libopencv-dev libturbojpeg0-dev libglib2.0-0

# A worker for each processor; each takes a good gigabyte, so that eight are the most. `make JOBS=0`
# runs everything in one process. Who has finished takes over half of what another has left.
JOBS ?= logical
PYTEST := $(BIN)/python -m pytest --numprocesses $(JOBS) --maxprocesses 8 --dist worksteal

# What answers within a minute: rooms whose tests start no process and load no zoo of networks.
FAST := tests/stats tests/verdicts tests/results tests/probing tests/estimators \
  tests/cache tests/test_registry.py
TOO_SLOW := $(addprefix tests/,cache/test_crashes.py cache/test_features.py \
  cache/test_integrity.py cache/test_lock.py estimators/test_measures.py stats/test_softmax.py)

.PHONY: help demo test test-fast test-slow check slurm ffcv lint types docs reference bench clean

help:
	@echo "make demo       render, extract, probe and report on the reference checkpoints"
	@echo "make test       tests and doctests, on all processors"
	@echo "make test-fast  the tests that answer within a minute"
	@echo "make test-slow  what make test leaves out: notebooks, the pieces of the docs, many ranks, repetitions"
	@echo "make check      lint, types and the fast tests"
	@echo "make slurm      a SLURM cluster of one node, and the tests that need it (as root, Debian)"
	@echo "make ffcv       FFCV, with the system packages that it is built with"
	@echo "make lint       ruff, codespell and the contract between the rooms"
	@echo "make types      mypy, strict"
	@echo "make docs       the documentation site, in site/"
	@echo "make reference  rewrite the command reference, the tables of families and tasks, the audit"
	@echo "make bench      every script in benchmarks/"
	@echo "make clean      remove .venv and site/"

demo: .venv/.render
	$(BIN)/layerscope demo

test: .venv/.dev
	$(PYTEST)

test-fast: .venv/.dev
	$(PYTEST) $(FAST) $(TOO_SLOW:%=--ignore=%)

test-slow: .venv/.dev
	$(PYTEST) tests -m 'slow and not slurm'
	$(PYTEST) --nbmake notebooks

check: lint types test-fast

slurm: .venv/.dev
	@SLURM_CONF=$$(tests/slurm/cluster.sh start) && export SLURM_CONF && \
	  { $(BIN)/python -m pytest tests/slurm -m slurm; code=$$?; } && \
	  tests/slurm/cluster.sh stop && exit $$code

ffcv: .venv/.ffcv

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/lint-imports

types: .venv/.dev
	$(BIN)/mypy

docs: .venv/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Not part of docs: the tests must see a page that was forgotten.
reference: .venv/.dev
	$(BIN)/python docs/cli.py
	$(BIN)/python docs/families.py
	$(BIN)/python docs/tasks.py
	$(BIN)/python docs/audit.py

bench: .venv/.dev
	@set -e; for script in benchmarks/*.py; do \
	  echo "== $$script"; $(BIN)/python "$$script"; \
	done

clean:
	rm -rf .venv site

.venv/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "LayerScope needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	@touch $@

.venv/.render: .venv/.made pyproject.toml
	$(INSTALL) --editable '.[render]'
	@touch $@

# The development extra contains the renderer, so its stamp counts for both.
.venv/.dev: .venv/.made pyproject.toml
	$(INSTALL) --editable '.[dev]'
	@touch $@ .venv/.render

.venv/.ffcv: .venv/.made pyproject.toml
	@{ command -v g++ && pkg-config --exists opencv4 libturbojpeg; } >/dev/null 2>&1 || { \
	  command -v apt-get >/dev/null || { \
	    echo "FFCV is built with OpenCV and libjpeg-turbo. Install what your system calls these" \
	      "Debian packages, then repeat: $(FFCV_PACKAGES)" >&2; exit 2; }; \
	  as_root=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	  $$as_root apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	    $$as_root apt-get install -qq -y --no-install-recommends $(FFCV_PACKAGES) >/dev/null; }
	$(INSTALL) --editable '.[ffcv]'
	$(BIN)/python -W ignore -c 'import ffcv'
	@touch $@
