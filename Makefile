# Every command of the README. Each creates what it needs in .venv and leaves the rest of the machine alone.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
HERE := PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}"
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile

.PHONY: help demo test check bench gpu clean

help:  ## list these commands
	@awk -F : '/^[a-z]+:.*  ## / { name = $$1; sub(/.*  ## /, ""); printf "make %-6s %s\n", name, $$0 }' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.demo  ## watch clipping save a real training run (under 2 minutes), then look at demo.png
	$(BIN)/python -m demo $(ARGS)

test: $(VENV)/.test  ## the contract on the adapters and on every namespace, the unit tests, the docstrings' examples
	$(PYTEST) -q -r fE conformance --adapter gradclip.backends.torch --adapter gradclip.backends.jax
	$(PYTEST) --doctest-modules --doctest-glob=README.md README.md gradclip tests conformance $(ARGS)

check: $(VENV)/.test $(VENV)/.check  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/basedpyright

bench: $(VENV)/.test  ## speed and accuracy beside the peers and the physical floor
	$(BIN)/python -m benchmarks $(ARGS)

gpu:  ## on a machine with a GPU: tests and benchmarks there, with the python3 that has torch or cupy (no network, no .venv)
	@$(HERE) $(PYTHON) -m benchmarks.gpu.tests || echo "GPU tests: not all run and passed (above)"
	@command -v compute-sanitizer >/dev/null && $(HERE) compute-sanitizer --error-exitcode 3 $(PYTHON) -m benchmarks.gpu --checks \
	  || echo "compute-sanitizer: not found, or it found something (above)"
	$(HERE) $(PYTHON) -m benchmarks.gpu $(ARGS)

clean:  ## remove .venv, what was built, and the caches
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.%: pyproject.toml | $(VENV)/bin/python
	$(PIP) install -e ".[$*]"
	touch $@
