"""Clause 16: the same input on the same machine gives the same bits."""

import os
import subprocess
import sys

import numpy as np
import pytest

from conformance.checks import assert_same_bits
from conformance.helpers import CLIPS, PURE, clip, make, read
from conformance.targets import Target
from conformance.values import model, spread


def test_norm_again(target: Target, dtype: str) -> None:
    """A norm computed again, from equal values in other memory, has the same bits."""
    values = spread(20_011, dtype)
    got = [target.run(target.api.global_norm, make(target, [(values, dtype), (values[:77], dtype)])) for _ in range(3)]
    first, *others = read(target, got)
    for other in others:
        assert_same_bits(other, first)


@pytest.mark.parametrize("function", PURE)
def test_clip_again(target: Target, function: str) -> None:
    """Clipping again gives the same bits."""
    first, second = (read(target, clip(target, function, make(target, model("float32")), CLIPS)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert_same_bits(other, one)


def test_order_of_insertion(target: Target) -> None:
    """The order in which a dict was filled does not change the norm's bits."""
    parts = {f"layer{i}": spread(301, "float32", seed=i) for i in range(12)}
    names = list(parts)
    got = []
    for order in (names, names[::-1], sorted(names, key=lambda name: parts[name][0])):
        grads = {name: target.make(parts[name], "float32") for name in order}
        got.append(target.read(target.run(target.api.global_norm, grads)))
    assert_same_bits(got[1], got[0])
    assert_same_bits(got[2], got[0])


@pytest.mark.needs("eager", "host", "views")
def test_hash_seeds() -> None:
    """Another order of hashing, in another process, does not change the norm's bits."""
    code = (
        "import numpy as np, gradclip\n"
        "rng = np.random.default_rng(0)\n"
        "grads = {name: rng.standard_normal(999).astype('f4') for name in sorted('abcdefghij')}\n"
        "print(gradclip.global_norm({name: grads[name] for name in set(grads)}).tobytes().hex())"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(said) == 1


def test_position_in_memory(target: Target, dtype: str) -> None:
    """Neither do the leaves' addresses: the same values behind others have the same norm."""
    values = spread(5003, dtype)
    long = target.make(np.concatenate([values[:3], values]), dtype)
    apart, behind = read(
        target,
        target.run(lambda a, b: [target.api.global_norm(x) for x in (a, b[3:])], target.make(values, dtype), long),
    )
    assert_same_bits(behind, apart)
