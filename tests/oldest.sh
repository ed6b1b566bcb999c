#!/usr/bin/env bash
# The unit tests and the contract with the lowest versions that pyproject.toml declares for numpy, array-api-compat, optree,
# torch, jax and optax. Test tools are the newest ones that work beside them. It needs the oldest supported Python.
# What does not depend on those versions is left out: tests of benchmarks, of the demo, of packaging and of the suite itself.
set -euo pipefail
cd "$(dirname "$0")/.."
env=${OLDEST:-.venv-oldest}
if [ ! -e "$env/ready" ] || [ pyproject.toml -nt "$env/ready" ] || [ tests/oldest.sh -nt "$env/ready" ]; then
  "${PYTHON:-python3}" -m venv --clear "$env"
  "$env/bin/python" -m pip install -q uv
  uv() { VIRTUAL_ENV=$env "$env/bin/uv" "$@"; }
  uv pip compile -q --resolution lowest-direct --extra torch --extra optax pyproject.toml -o "$env/lowest.txt"
  uv pip install -q -r "$env/lowest.txt" -e ".[conformance,demo,plot,tensorboard]" \
    array-api-strict autoclip build "dask[array,distributed]" ddsketch equinox flax ml-dtypes ndonnx orbax-checkpoint \
    pytest-timeout pytest-xdist pytorch_optimizer setuptools sparse zclip
  touch "$env/ready"
fi
"$env/bin/python" -m pip list 2>/dev/null | grep -iE '^(numpy|array.api.compat|optree|torch|jax|jaxlib|optax) '
pytest=("$env/bin/python" -m pytest -q -r fE -n auto --dist loadfile --no-loadscope-reorder)
failed=0
"${pytest[@]}" conformance --namespace numpy --namespace torch --namespace jax.numpy "$@" || failed=1
"${pytest[@]}" conformance --adapter gradclip.backends.torch --adapter gradclip.backends.jax "$@" || failed=1
apart=(tests/benchmarks tests/conformance tests/demo tests/test_packaging.py)
"${pytest[@]}" tests "${apart[@]/#/--ignore=}" "$@" || failed=1
exit $failed
