#!/usr/bin/env bash
# The unit tests and the contract with the lowest versions that pyproject.toml declares for numpy, array-api-compat, optree,
# torch, jax and optax. Test tools are the newest ones that work beside them. It needs the oldest supported Python.
set -euo pipefail
cd "$(dirname "$0")/.."
env=${OLDEST:-.venv-oldest}
if [ ! -e "$env/ready" ] || [ pyproject.toml -nt "$env/ready" ]; then
  "${PYTHON:-python3}" -m venv --clear "$env"
  "$env/bin/python" -m pip install -q uv
  uv() { VIRTUAL_ENV=$env "$env/bin/uv" "$@"; }
  uv pip compile -q --resolution lowest-direct --extra torch --extra optax pyproject.toml -o "$env/lowest.txt"
  # Without what needs a newer JAX (flax, equinox, orbax) or is a peer to compare with.
  uv pip install -q -r "$env/lowest.txt" -e ".[conformance,demo,plot,tensorboard]" \
    array-api-strict build ml-dtypes pytest-timeout pytest-xdist setuptools
  touch "$env/ready"
fi
"$env/bin/python" -m pip list 2>/dev/null | grep -iE '^(numpy|array.api.compat|optree|torch|jax|jaxlib|optax) '
pytest=("$env/bin/python" -m pytest -q -r fE -n auto --dist loadfile)
"${pytest[@]}" conformance --namespace numpy --namespace torch --namespace jax.numpy "$@"
"${pytest[@]}" conformance --adapter gradclip.backends.torch --adapter gradclip.backends.jax "$@"
"${pytest[@]}" tests "$@"
