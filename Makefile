# Shallop. `make help` lists the targets.
#
# PYTHON       interpreter, 3.11 or newer
# TORCH_INDEX  package index of torch; found by itself: PyTorch's CPU index on a machine without an
#              NVIDIA driver, else the default index. `TORCH_INDEX=` (empty) forces the default.
# DATA, STORE, DEMO_EXIT   see `demo`

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
TORCH_INDEX ?= $(shell $(PYTHON) torch_index.py)
TORCH_FLAGS = $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.PHONY: help setup demo test kernels lint format e2e up down constraints clean

help:  ## list the targets
	@grep -hE '^[a-z0-9]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-12s %s\n", $$1, $$2}'

$(VENV)/app: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Shallop needs Python 3.11 or newer, name one with PYTHON=…: $$($(PYTHON) --version)"; exit 1; }
	@echo "Installing Shallop into $(VENV) (some minutes the first time)"
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@$(PIP) $(TORCH_FLAGS) --editable .
	@touch $@

$(VENV)/s3: $(VENV)/app
	@$(PIP) --editable '.[s3]'
	@touch $@

$(VENV)/dev: $(VENV)/app
	@echo "Installing the tools of development"
	@$(PIP) --editable '.[dev,s3]'
	@touch $@

$(VENV)/kernels: $(VENV)/dev
	@$(PIP) --editable '.[kernels]'
	@touch $@

setup: $(VENV)/dev  ## make the environment with everything that development needs

demo: $(VENV)/app $(if $(filter s3,$(STORE)),$(VENV)/s3)  ## a shop with recommendations, until Ctrl-C [DATA=events.parquet] [STORE=s3] [DEMO_EXIT=1]
	@$(BIN)/shallop demo $(if $(DATA),--data $(DATA)) $(if $(STORE),--store $(STORE)) $(if $(filter 1,$(DEMO_EXIT)),--exit)

test: setup  ## the tests, without those that need Docker
	$(BIN)/pytest -q --numprocesses auto --maxprocesses 4 --dist loadfile

kernels: $(VENV)/kernels  ## Triton (200 MB), with which `make test` tries the GPU kernels on a CPU

lint: setup  ## format, lint, types, import directions, SQL
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/sqlfluff lint --processes 1 transforms

format: setup  ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/sqlfluff fix --force transforms

e2e: setup  ## docker compose up, for real: events in, refresh by Dagster, recommendations out
	$(BIN)/pytest -q -m compose tests/e2e

up: .env  ## docker compose up in the background
	docker compose up --build --detach --wait

down:  ## stop the containers, keep their data
	docker compose down

.env:
	cp .env.example .env

constraints: $(VENV)/kernels  ## write constraints.txt anew from what is installed
	@{ echo '# Versions that are proven together on CPython 3.11 (regenerate with `make constraints`)'; \
	  $(BIN)/pip list --format=freeze --exclude-editable --exclude pip | sed 's/+cpu$$//'; } > constraints.txt

clean:  ## remove the environment and all local state
	rm -rf $(VENV) .shallop
