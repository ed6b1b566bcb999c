# Every command of the README. Each creates what it needs in .venv and leaves the rest of the machine alone.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
HERE := PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}"
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder
# ARGS may select tests of one run and none of another: then pytest exits with status 5.
SELECTED := $(ARGS)$(if $(ARGS), || [ $$? -eq 5 ])
# XLA compiles in less time with these flags. Stage 1 of make test runs without them: the contract on JAX's adapter, and the
# tests of what XLA makes of a program, are for the programs that users get. An XLA that does not know a flag ends the
# process: then there are none.
XLA := --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1 --xla_backend_optimization_level=0
FAST_XLA = XLA_FLAGS="$$(XLA_FLAGS="$(XLA)" $(BIN)/python -c "import jax; jax.devices()" 2>/dev/null && echo "$(XLA)")"
AS_USERS_COMPILE := tests/backends/jax/test_norms.py tests/backends/jax/test_program.py
# Tests of what is done otherwise where the kernels are not built.
WITHOUT_KERNELS := tests/test_global.py tests/test_tensor_memory.py $(patsubst %,tests/backends/torch/test_%.py,leaves named_norms)
# The tests of make quick: those of the core and of PyTorch, without the slow ones.
SLOW := dask_ops dtypes_of_leaves packaging properties types
SLOW_TORCH := attach_stress compiled_step dtypes examples failures_of_torch properties compiled training_script
QUICK := $(filter-out $(SLOW:%=tests/test_%.py),$(wildcard tests/test_*.py)) \
  $(filter-out $(SLOW_TORCH:%=tests/backends/torch/test_%.py),$(wildcard tests/backends/torch/test_*.py))
BRIEF := not million and not billion and not 32_bits and not compiled and not processes and not not_written

.PHONY: help demo quick test integrations check lint types format docs links sanitize bench gpu dist oldest newest frameworks clean

help:  ## list these commands
	@awk -F : '/^[a-z]+:.*  ## / { name = $$1; sub(/.*  ## /, ""); printf "make %-12s %s\n", name, $$0 }' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.demo  ## watch clipping save a real training run, then look at demo.png (2 min; installs 0.3 GB)
	$(BIN)/python -m demo $(ARGS)

quick: $(VENV)/.test  ## the fast unit tests of the core and of PyTorch, the contract on NumPy and PyTorch in part (about 1 min on 2 cores; installs 4 GB)
	$(PYTEST) -q $(QUICK) conformance --namespace numpy --namespace torch --cases 4 -k "$(BRIEF)" $(ARGS)

test: $(VENV)/.test  ## all tests, and the contract on every namespace and adapter (10 to 30 min on 2 cores; installs 4 GB)
	@echo "1 of 3: the contract on the adapters for PyTorch and JAX, and what XLA makes of JAX's programs"
	$(PYTEST) -q -r fE conformance $(AS_USERS_COMPILE) --adapter gradclip.backends.torch --adapter gradclip.backends.jax $(SELECTED)
	@echo "2 of 3: the contract on NumPy and on PyTorch's adapter, and some unit tests, without the kernels in C"
	GRADCLIP_NATIVE=0 $(PYTEST) -q -r fE conformance $(WITHOUT_KERNELS) --namespace numpy $(SELECTED)
	GRADCLIP_NATIVE=0 $(PYTEST) -q -r fE conformance --adapter gradclip.backends.torch $(SELECTED)
	@echo "3 of 3: the unit tests, the contract on every namespace, the examples of README, docs and docstrings"
	$(FAST_XLA) $(PYTEST) --doctest-modules --doctest-glob='*.md' $(AS_USERS_COMPILE:%=--ignore=%) \
	  README.md README.zh-CN.md docs gradclip tests conformance $(SELECTED)

integrations:  ## training runs of Keras, Lightning, Transformers, Accelerate, skorch, Ignite, Stable-Baselines3 (3 min on 2 cores; installs 2 GB into .venv-integrations)
	$(MAKE) VENV=.venv-integrations .venv-integrations/.integrations
	.venv-integrations/bin/python -m pytest -q -n auto --dist loadfile tests/integrations $(ARGS)

check: lint types  ## lint, then types (2 min; installs 4 GB)

lint: $(VENV)/.lint  ## ruff: lint and format (1 s; installs 0.1 GB, no framework)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test $(VENV)/.types  ## mypy and basedpyright, which need the frameworks (2 min; installs 4 GB)
	$(BIN)/mypy
	$(BIN)/basedpyright

format: $(VENV)/.lint  ## format the code, and mend what ruff can mend (1 s; installs 0.1 GB)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.docs  ## the documentation: open docs/_build/html/index.html (2 min; installs 4 GB)
	$(BIN)/python -m sphinx -q -W --keep-going -d docs/_build/doctrees docs docs/_build/html $(ARGS)

links: $(VENV)/.docs  ## ask every link of the documentation whether it is there (3 min; needs the network; installs 4 GB)
	$(BIN)/python -m sphinx -q -W --keep-going -b linkcheck -d docs/_build/doctrees docs docs/_build/links $(ARGS)

sanitize: $(VENV)/.test  ## the kernels' tests under the address and undefined-behaviour sanitizers (1 min; needs gcc)
	mkdir -p build
	$(CC) -std=gnu11 -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-trapping-math -pthread -Wno-psabi -shared -fPIC \
	  -o build/kernels-sanitized.so gradclip/_native/kernels.c -lm
	LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" ASAN_OPTIONS=detect_leaks=0 \
	  GRADCLIP_NATIVE=build/kernels-sanitized.so $(BIN)/python -m pytest -q tests/test_native.py tests/test_numpy_ops.py $(ARGS)

bench: $(VENV)/.test  ## speed and accuracy beside the peers and the physical floor (more than 20 min; installs 4 GB)
	$(BIN)/python -m benchmarks $(ARGS)

gpu:  ## on a machine with a GPU: tests and benchmarks there, with the python3 that has torch or cupy (no network, no .venv)
	@$(HERE) $(PYTHON) -m benchmarks.gpu.tests || echo "GPU tests: not all run and passed (above)"
	@command -v compute-sanitizer >/dev/null && $(HERE) compute-sanitizer --error-exitcode 3 $(PYTHON) -m benchmarks.gpu --checks \
	  || echo "compute-sanitizer: not found, or it found something (above)"
	$(HERE) $(PYTHON) -m benchmarks.gpu $(ARGS)

dist: $(VENV)/.dist  ## build sdist and wheel, and check them: metadata, contents, how the README is rendered (1 min; installs 0.1 GB)
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl

oldest:  ## the unit tests and the contract with the oldest supported versions of all libraries (40 min on 2 cores; installs 4 GB)
	PYTHON=$(PYTHON) bash tests/oldest.sh $(ARGS)

newest:  ## make test with the newest Python that there is: make newest PYTHON=python3.14 (30 min on 2 cores; installs 4 GB into .venv-newest)
	$(MAKE) test VENV=.venv-newest

FRAMEWORKS := mlx paddle tensorflow
.PHONY: $(FRAMEWORKS:%=.venv-%)
frameworks: .venv-mlx .venv-paddle .venv-tensorflow  ## MLX with its contract, Paddle, TensorFlow, each in an environment of its own (5 min; installs 4 GB)
	.venv-mlx/bin/python -m pytest tests/test_mlx.py -c /dev/null --rootdir=. --import-mode=importlib
	.venv-mlx/bin/python -m gradclip.conformance --namespace mlx.core
	.venv-paddle/bin/python -m pytest tests/integrations/test_paddle.py -c /dev/null --rootdir=. --import-mode=importlib
	.venv-tensorflow/bin/python -m pytest tests/integrations/test_tensorflow.py -c /dev/null --rootdir=. --import-mode=importlib

.venv-mlx: PACKAGES = mlx mlx-cpu ml-dtypes
.venv-paddle: PACKAGES = paddlepaddle
.venv-tensorflow: PACKAGES = tensorflow-cpu tinygrad keras
$(FRAMEWORKS:%=.venv-%):
	test -d $@ || $(PYTHON) -m venv $@
	$@/bin/python -m pip install -q -e ".[conformance]" $(PACKAGES)

clean:  ## remove .venv, what was built, and the caches
	rm -rf $(VENV) .venv-oldest .venv-newest .venv-integrations $(FRAMEWORKS:%=.venv-%) build dist docs/_build docs/gallery docs/reference/*.rst *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.%: pyproject.toml setup.py $(wildcard gradclip/_native/*.[ch]) | $(VENV)/bin/python
	$(PIP) install -e ".[$*]"
	touch $@
