"""Both ways to a norm: the one of CPUs and the one of accelerators, which XLA compiles for a CPU as well."""

import jax
import pytest

from gradclip.backends.jax._ops import JaxOps


@pytest.fixture(params=["on need", "at once"])
def way(request, monkeypatch):
    if request.param == "on need":
        yield
        return
    monkeypatch.setattr(JaxOps, "_on_need", JaxOps._at_once)
    jax.clear_caches()  # of what was compiled the other way
    yield
    monkeypatch.undo()
    jax.clear_caches()
