# One definition of everything: `make help` lists it. Python 3.11 or newer is all that must be there.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODELS_DIR ?= models
CONFIG ?= serve_config.yaml
CLUSTER_TESTS := tests/contract tests/faults tests/integration
UNIT_TESTS := tests $(CLUSTER_TESTS:%=--ignore=%)
# A worker for each core, four at most. Tests that start clusters run one after the other: each needs the whole machine.
IN_PARALLEL := -n auto --maxprocesses 4 --dist worksteal
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help install models serve test test-long unit lint format docs bench lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: $(BIN)/python pyproject.toml constraints.txt
	@echo "installing the service (a few minutes the first time)"
	$(BIN)/pip install --quiet --editable . --constraint constraints.txt
	@touch $@

$(VENV)/.dev: $(VENV)/.serve
	@echo "installing what tests, lint and benchmarks need"
	$(BIN)/pip install --quiet --editable '.[test,lint,bench]' --constraint constraints.txt
	@# it asks for an older httpx than the other clients do, and works with the one they have
	$(BIN)/pip install --quiet --no-deps infinity-client --constraint constraints.txt
	@touch $@

install: $(VENV)/.serve ## create .venv and install the service into it

models: $(VENV)/.serve ## build the starter models that are missing
	@$(BIN)/python -m serve_app.starter_models --models-dir $(MODELS_DIR)

serve: models ## run the service on port 8000 until Ctrl-C
	@set -a; . configs/serve.env; set +a; exec $(BIN)/python -m serve_app $(CONFIG)

test: $(VENV)/.dev models ## run all tests (minutes: they start real clusters)
	@failed=0; \
	$(BIN)/pytest $(IN_PARALLEL) $(UNIT_TESTS) || failed=1; \
	$(BIN)/pytest $(CLUSTER_TESTS) || failed=1; \
	exit $$failed

test-long: $(VENV)/.dev models ## kill everything that has to do with a fine-tune, one after the other, and more
	$(BIN)/pytest tests -m long

unit: $(VENV)/.dev ## run the unit tests only (two minutes)
	$(BIN)/pytest $(IN_PARALLEL) $(UNIT_TESTS)

lint: $(VENV)/.dev ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev ## rewrite the code in the agreed format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.dev ## write the generated parts of docs/ (settings, routes, errors, metrics)
	$(BIN)/python -m tools.generate_docs

bench: $(VENV)/.dev models ## measure this service beside others, in one run
	$(BIN)/python -m benchmarks

lock: ## rewrite the lock files of the image from pyproject.toml and constraints.txt (needs uv)
	uv pip compile pyproject.toml --constraint constraints.txt --universal --python-version 3.11 --generate-hashes \
	  --no-header --no-annotate --quiet --output-file requirements.lock.new
	awk '/^[a-z]/ { out = /^(torch|triton|nvidia-[a-z0-9-]*|cuda-[a-z0-9-]*)==/ ? "requirements-torch.lock" : "requirements.lock" } \
	  { print > out }' requirements.lock.new
	rm requirements.lock.new

clean: ## remove the virtual environment and caches; models stay
	rm -rf $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
