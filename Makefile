# Two commands do all the set-up on a fresh machine: `make search` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN ?= runs/digits

.PHONY: search test slow-test lint format clean

search: $(VENV)/.installed ## a whole search on the embedded images, minutes on a laptop
	$(BIN)/python -m adarts_jax.search --out $(RUN) $(ARGS)

test: $(VENV)/.installed-test ## the default tests, in two processes
	$(BIN)/python -m pytest -q -n 2 --dist loadfile $(ARGS)

slow-test: $(VENV)/.installed-test ## the full-size goldens and long runs too
	$(BIN)/python -m pytest -q -m "slow and not gpu and not network" $(ARGS)

lint: $(VENV)/.installed-dev ## style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install -q -e .
	touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install -q -e ".[test]"
	touch $@ $(VENV)/.installed

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install -q -e ".[dev]"
	touch $@ $(VENV)/.installed $(VENV)/.installed-test

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
