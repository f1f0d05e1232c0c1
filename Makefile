# Needs python3 (3.11 or newer) and make; everything else goes into .venv.
#
#   make demo     logs made up, a model trained on them, evaluated, explained, packed and used
#   make test     the tests
#   make check    lint, format, types and tests, as they must be before a commit
#   make clean    remove what these made, the environment included

PYTHON ?= python3
DEMO_ROWS ?= 50000
BIN := .venv/bin

.PHONY: demo test check clean

.venv/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@

demo: .venv/.installed
	$(BIN)/python examples/generate_logs.py --rows $(DEMO_ROWS) --seed 1 --split 0.2 --out demo
	$(BIN)/seqbag train --source demo/train.parquet --out demo/model.seqbag
	$(BIN)/seqbag evaluate demo/model.seqbag --source demo/test.parquet
	$(BIN)/seqbag inspect demo/model.seqbag
	$(BIN)/seqbag export demo/model.seqbag --weights ternary --activations sign \
	    --source demo/train.parquet --out demo/packed.seqbag
	$(BIN)/seqbag predict demo/packed.seqbag --source demo/test.parquet --out demo/predictions.parquet

test: .venv/.installed
	$(BIN)/python -m pytest -q

check: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q

clean:
	rm -rf .venv demo build dist *.egg-info
