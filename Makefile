# Everpin. `make demo` and `make test` are all a fresh machine needs (CPython 3.11 with venv, make).
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check install -q -c requirements/constraints.txt

.PHONY: demo test test-units test-contract test-surfaces test-faults test-integration test-rollouts test-outages test-browser check lock training bench clean help

help:
	@echo "make demo      install the runtime (no torch) and run the whole system on embedded parts"
	@echo "make test      install what tests need and run them all; missing services skip, with CI=true they fail"
	@echo "make check     ruff, mypy strict, import-linter, yamllint, alert rules with promtool, audit of dependencies"
	@echo "make training  install torch and the training extra"
	@echo "make bench     run every benchmark and rewrite bench/*.json (run nothing beside it)"
	@echo "make lock      rewrite requirements/constraints.txt from what is installed"

demo: $(VENV)/.runtime
	$(BIN)/everpin demo

test: test-rollouts test-faults test-integration test-contract test-units test-outages test-surfaces test-browser

ROLLOUTS := rollout backfill
OUTAGES := outages healing
APART := $(ROLLOUTS) $(OUTAGES)

# Apart, so that `make -j4 test` runs them side by side, those first that mostly wait for processes.
# The unit tests alone cover the core, and the coverage of it doubles what Python costs: no other group is traced.
test-units: $(VENV)/.dev
	$(BIN)/python -m pytest tests/unit --cov --cov-report=term:skip-covered

test-contract: $(VENV)/.dev
	$(BIN)/python -m pytest tests/client tests/contract tests/golden tests/training

# The API: what it answers, while the alias moves, to hostile input, and against its own document.
test-surfaces: $(VENV)/.dev
	$(BIN)/python -m pytest tests/surfaces tests/hostile

test-faults: $(VENV)/.dev
	$(BIN)/python -m pytest tests/faults tests/e2e

test-integration: $(VENV)/.dev
	$(BIN)/python -m pytest tests/integration $(APART:%=--ignore=tests/integration/test_%.py)

test-rollouts: $(VENV)/.dev
	$(BIN)/python -m pytest $(ROLLOUTS:%=tests/integration/test_%.py)

test-outages: $(VENV)/.dev
	$(BIN)/python -m pytest $(OUTAGES:%=tests/integration/test_%.py)

# The page in real Chromium (Debian's package `chromium`).
test-browser: $(VENV)/.dev
	$(BIN)/python -m pytest tests/browser

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/yamllint -c .yamllint.yaml docker feature_repo ops
	$(BIN)/python -m pytest tests/unit/test_ops.py
	$(BIN)/python requirements/audit.py

training: $(VENV)/.training

bench: $(VENV)/.bench
	$(BIN)/python -m bench.encoder
	$(BIN)/python -m bench.worker
	$(BIN)/python -m bench.freshness
	$(BIN)/python -m bench.edits
	$(BIN)/python -m bench.guard
	$(BIN)/python -m bench.scaling
	$(BIN)/python -m bench.memory
	$(BIN)/python -m bench.reconcile
	$(BIN)/python -m bench.backfill
	$(BIN)/python -m bench.load $(if $(CXC),--cxc $(CXC),--settings sample generated)
	$(if $(CXC),$(BIN)/python -m bench.feed $(CXC))
	$(BIN)/python -m bench.experiments
	$(BIN)/python -m bench.report
	$(BIN)/python -m bench.scale

lock: $(VENV)/.dev $(VENV)/.training
	$(BIN)/python requirements/lock.py > requirements/constraints.new
	mv requirements/constraints.new requirements/constraints.txt

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)

$(VENV)/.runtime: $(VENV)/bin/pip pyproject.toml requirements/constraints.txt
	$(PIP) -e '.[worker]'
	touch $@

$(VENV)/.dev: $(VENV)/bin/pip pyproject.toml client/pyproject.toml requirements/constraints.txt
	$(PIP) -e '.[dev]' -e client
	touch $@

$(VENV)/.training: $(VENV)/bin/pip pyproject.toml requirements/constraints.txt
	$(PIP) -e '.[training]'
	touch $@

$(VENV)/.bench: $(VENV)/bin/pip pyproject.toml requirements/constraints.txt
	$(PIP) -e '.[bench]'
	touch $@

clean:
	rm -rf $(VENV) .everpin build *.egg-info
