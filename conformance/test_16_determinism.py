"""Clause 16: the same input gives the same bits on a machine, with any hash seed and any number of threads."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from gradclip.conformance import another_process
from gradclip.conformance.checks import assert_same_bits
from gradclip.conformance.fingerprint import fingerprint
from gradclip.conformance.helpers import PURE, clip, make, read
from gradclip.conformance.targets import Target
from gradclip.conformance.values import normal, spread


def test_again(target: Target) -> None:
    """The same call twice, on equal arrays in other memory."""
    assert fingerprint(target, 3000) == fingerprint(target, 3000)


@pytest.mark.parametrize("function", PURE)
def test_every_function(target: Target, real_dtype: str, function: str) -> None:
    """Every function, twice."""
    leaves = [(normal(300, real_dtype, 1), real_dtype), (normal((4, 9), real_dtype, 2), real_dtype)]
    first, second = (read(target, clip(target, function, make(target, leaves), 0.25)) for _ in range(2))
    assert [x.tobytes() for x in first] == [x.tobytes() for x in second]


def test_place_in_memory(target: Target, dtype: str) -> None:
    """The same values at another address, behind others, have a norm of the same bits."""
    values = spread(5003, dtype)
    long = target.make(np.concatenate([values[:3], values]), dtype)
    norms = target.run(lambda a, b: [target.api.global_norm(x) for x in (a, b[3:])], target.make(values, dtype), long)
    apart, behind = read(target, norms)
    assert_same_bits(behind, apart)


@pytest.mark.needs("quick")
def test_order_of_a_dict(target: Target) -> None:
    """The norm does not depend on the order in which a dict was filled."""
    parts = {name: target.make(spread(999, "float32", i), "float32") for i, name in enumerate("wbkqvo")}
    norms = [
        target.api.global_norm(dict(items)) for items in (parts.items(), sorted(parts.items()), reversed(parts.items()))
    ]
    assert len({float(x) for x in read(target, norms)}) == 1


@pytest.mark.needs("quick", "large")
def test_threads(target: Target) -> None:
    """Many threads at once get the bits that one gets."""
    leaves = make(target, [(spread(200_003, "float32", i), "float32") for i in range(3)])

    def bits(_: int) -> bytes:
        clipped, norm = target.api.clip_by_global_norm(leaves, 0.5)
        return b"".join(x.tobytes() for x in read(target, [norm, *clipped]))

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(bits, range(24)))) == 1


@pytest.mark.needs("quick", "large")
def test_processes(target: Target, pytestconfig: pytest.Config) -> None:
    """Processes with other seeds of Python's hashes get the bits that this one gets."""
    here = fingerprint(target)
    runs = [another_process.run(pytestconfig, target, "fingerprint", PYTHONHASHSEED=seed) for seed in ("0", "4711")]
    assert [run.stderr for run in runs if run.returncode] == []
    assert runs[0].stdout == runs[1].stdout == here
