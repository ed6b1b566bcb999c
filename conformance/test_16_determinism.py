"""Clause 16: same input, same machine, same bits; independent of hash order and of threads."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradclip
from conformance import frameworks
from conformance.checks import assert_same_bits
from conformance.helpers import PURE, clip, clip_global, make, read
from conformance.targets import Target, load
from conformance.values import normal, spread


def fingerprint(target: Target, n: int = 20_000) -> str:
    """Return all bits of a norm and of clipped leaves."""
    dtypes = target.dtypes
    names = [f"layer{i}" for i in range(2 * len(dtypes))]
    grads = {
        name: target.make(spread(n, d, i), d) for i, (name, d) in enumerate(zip(names, [*dtypes, *dtypes], strict=True))
    }
    clipped, norm = clip_global(target, grads, 0.5)
    return norm.hex() + "".join(x.tobytes().hex()[:4096] for x in read(target, clipped))


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
def test_processes(target: Target) -> None:
    """Processes with other seeds of Python's hashes get the same bits."""
    roots = [str(Path(__file__).parent.parent), str(Path(gradclip.__file__).parent.parent)]
    code = (
        f"import sys; sys.path[:0] = {roots!r}; from conformance.test_16_determinism import show; show(*sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, target.name, target.api.__name__]
    runs = [
        subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": seed}, check=True, capture_output=True, text=True)
        for seed in ("0", "4711")
    ]
    assert runs[0].stdout == runs[1].stdout != ""


def show(name: str, api: str) -> None:
    """Print the fingerprint of a target, in a process of its own."""
    target: Any = next(t for t in frameworks.targets_of(name.partition("[")[0], load(api)) if t.name == name)
    with target.active():
        sys.stdout.write(fingerprint(target))
