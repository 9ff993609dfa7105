# Everything a developer does here. Only Python 3.11+ and make are needed; the rest goes into .venv.
.DEFAULT_GOAL := help
.PHONY: help run reset test check bench format access lock deploy rotate clean

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
VENV := .venv
BIN := $(VENV)/bin
# Unit tests have no common ground but the processor: a process per core, and whoever is done takes over from the other.
UNIT := $(BIN)/python -m pytest -q -n auto --dist worksteal tests/unit
PIP := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --require-hashes
export PYTHONDONTWRITEBYTECODE =

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' $(MAKEFILE_LIST)

run: $(VENV)/.run ## Attune on this machine, until Ctrl-C
	@$(BIN)/python -m infra.local.stack

reset: ## forget the state of `make run`
	@$(PYTHON) -m infra.local.reset

test: check ## everything, from nothing, on free ports
	@$(UNIT) -m "slow or aws"
	@$(BIN)/python -m pytest -q tests/contract tests/e2e

check: $(VENV)/.dev ## lint, types, and the unit tests that need no AWS, not even a fake one
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(UNIT) -m "not slow and not aws"

bench: $(VENV)/.dev ## the benchmarks; prints a table, writes bench.json
	@$(BIN)/python -m tests.bench

format: $(VENV)/.dev ## rewrite the sources in the house's format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

access: $(VENV)/.run ## rewrite docs/access.md, the table of who may do what
	@$(BIN)/python -m infra.access_table

deploy: $(VENV)/.run ## deploy to AWS (docs/operating.md)
	@$(BIN)/python -m infra.deploy

rotate: $(VENV)/.run ## a new key for the deployment's tokens
	@$(BIN)/python -m infra.rotate

lock: ## renew the locks from the .in files; needs uv
	@for name in requirements runners/requirements infra/requirements requirements-dev; do \
		uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
			$$name.in --output-file $$name.txt || exit 1; done

clean: ## remove .venv and everything built
	@rm -rf $(VENV) .build .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Two environments in one: what running needs, and on top of it what developing needs.
$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Attune needs Python 3.11 or newer, and none was found: install one, or name it with make PYTHON=..." >&2; exit 1; }
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "Python's venv module does not work here: install it (Debian: python3-venv)." >&2; exit 1; }

$(VENV)/.run: infra/requirements.txt | $(VENV)/bin/python
	@echo "installing packages"
	@$(PIP) --requirement infra/requirements.txt || { echo "The packages could not be installed." >&2; exit 1; }
	@touch $@

$(VENV)/.dev: requirements-dev.txt | $(VENV)/bin/python
	@echo "installing packages for development"
	@$(PIP) --requirement requirements-dev.txt || { echo "The packages could not be installed." >&2; exit 1; }
	@touch $@ $(VENV)/.run
