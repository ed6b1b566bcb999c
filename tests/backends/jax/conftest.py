"""Both ways to a norm: the one of CPUs and the one of accelerators, which XLA compiles for a CPU as well."""

from collections.abc import Iterator

import jax
import pytest

from gradclip.backends.jax._ops import JaxOps

ON_NEED = JaxOps._on_need


@pytest.fixture(scope="module", params=["at once", "on need"])
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run a file's tests one way, then the other, so that programs are forgotten twice and not with each test."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "at once":
            patch.setattr(JaxOps, "_on_need", JaxOps._at_once)
        jax.clear_caches()  # of what was compiled the other way
        yield
    jax.clear_caches()


@pytest.fixture(autouse=True)
def other_tests_run_the_way_of_cpus(request: pytest.FixtureRequest) -> None:
    assert "way" in request.fixturenames or JaxOps._on_need is ON_NEED
