"""Both ways to a norm: the one of CPUs and the one of accelerators, which XLA compiles for a CPU as well."""

import jax
import pytest

from gradclip.backends.jax import _sums
from gradclip.backends.jax._ops import JaxOps


@pytest.fixture(params=["on need", "at once"])
def way(request, monkeypatch):
    if request.param == "on need":
        yield
        return
    monkeypatch.setattr(JaxOps, "_on_need", JaxOps._at_once)
    # XLA for a CPU adds the numbers of a reduction with several results one by one; test_sums.py tests that reduction.
    monkeypatch.setattr(_sums, "_sums_in_one", _sums._sums_of)
    jax.clear_caches()  # of what was compiled the other way
    yield
    monkeypatch.undo()
    jax.clear_caches()
