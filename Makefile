# The few commands a person needs; `make` alone lists them. Python 3.11 or newer is all that must be there.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
# More arguments for pip, for instance another index.
PIP_ARGS ?=
# Tests that run at a time.
WORKERS ?= 2

VENV := .venv
# Keras, TensorFlow and JAX are tested apart from torch, which shows that it is not needed.
KERAS := $(VENV)/keras
# TensorFlow is built for Python 3.11 to 3.13.
KERAS_PYTHON ?= $(shell for p in $(PYTHON) python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info >= (3, 14))' >/dev/null 2>&1 && { echo $$p; break; }; done)
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_ARGS)

# make demo: changes to the recipe (ARGS), or a file of your own (DATA) with its columns (TEXT, LABEL).
ARGS ?=
DATA ?=
TEXT ?=
LABEL ?=
MINE := my-recipe.yaml

.DEFAULT_GOAL := help
.PHONY: help install demo test lint docs bench clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## Make .venv and install encodery in it

demo: $(VENV)/.installed ## Train and measure an encoder in minutes (DATA=my.csv: on your own file)
ifeq ($(strip $(DATA)),)
	@$(BIN)/encodery demo $(ARGS)
else
	@$(BIN)/encodery new $(DATA) --output $(MINE) $(if $(TEXT),--text $(TEXT)) $(if $(LABEL),--label $(LABEL))
	@$(BIN)/encodery train $(MINE) $(ARGS)
endif

test: lint $(KERAS)/.installed ## Check everything: style, types, the order of the rooms, then all tests
	@OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

lint: $(VENV)/.installed-dev ## Style, types and the order of the rooms, without the tests
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --pythonpath $(BIN)/python
	@$(BIN)/lint-imports

docs: $(VENV)/.installed ## Draw what README and docs take from the code anew, pictures too (two minutes)
	@$(BIN)/python docs/generate.py
	@OMP_NUM_THREADS=1 $(BIN)/python docs/pictures.py

bench: $(VENV)/.installed ## Measure anew: RUN=quality, RUN=memory (minutes to hours; ARGS are passed on)
ifeq ($(strip $(RUN)),)
	@for page in $(wildcard bench/*/README.md); do echo "== $$page"; cat "$$page"; done
else
	@$(BIN)/python bench/$(RUN)/run.py $(ARGS)
endif

clean: ## Remove .venv and what tools leave behind; runs/ stays
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests examples docs bench -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name it with PYTHON=/path/to/python" >&2; exit 2; }
	@echo "making $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)

# Torch first, by itself: the version in constraints.txt is the CPU build, and what follows finds it there.
$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing encodery (some minutes the first time)"
	@$(PIP) torch
	@$(PIP) -e '.[demo]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "installing the tools of developers"
	@$(PIP) -e '.[dev]'
	@touch $@

$(KERAS)/.installed: pyproject.toml tests/interop/keras_packages.py | $(VENV)/bin/python
	@echo "making $(KERAS) for the tests of the Keras encoder"
	@$(KERAS_PYTHON) -m venv $(KERAS)
	@$(BIN)/python tests/interop/keras_packages.py > $(KERAS)/packages.txt
	@$(KERAS)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -r $(KERAS)/packages.txt
	@touch $@
