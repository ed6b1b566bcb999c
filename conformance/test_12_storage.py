"""Clause 12: in place keeps the storage; what cannot be written is refused, by the name of the pure function."""

from typing import Any

import numpy as np
import pytest

from conformance import trees
from conformance.checks import assert_same_bits
from conformance.helpers import CLIPS, IN_PLACE, LEAVES, clip, make, read
from conformance.oracles import Values
from conformance.targets import Target
from conformance.values import is_complex, model, normal


@pytest.mark.needs("writable")
@pytest.mark.parametrize("function", IN_PLACE)
@pytest.mark.parametrize("limit", [CLIPS, LEAVES])
def test_as_the_pure_function(target: Target, dtype: str, function: str, limit: float) -> None:
    """In place writes what the pure function returns, into the very arrays that were passed."""
    if function == "clip_by_value_" and is_complex(dtype):
        return
    grads = {"a": make(target, model(dtype)), "b": None}
    before = trees.arrays(grads)
    right = read(target, clip(target, function[:-1], make(target, model(dtype)), limit))
    IN_PLACE[function](target.api, grads, limit)
    assert all(x is y for x, y in zip(trees.arrays(grads), before, strict=True))
    bits = 4 * {"float16": 2.0**-10, "bfloat16": 2.0**-7}.get(dtype, 2.0**-23)
    for got, wanted in zip(read(target, before), right, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=bits, atol=0)


@pytest.mark.needs("writable", "views")
@pytest.mark.parametrize("function", IN_PLACE)
def test_views(target: Target, function: str) -> None:
    """A view is written through: what it shows changes in its base, and what it does not show stays."""
    base = normal((6, 8), "float32")
    keys: tuple[Any, ...] = ((slice(None, None, 2), slice(1, 5)), (slice(1, None, 2), 7))
    x = target.make(base, "float32")
    IN_PLACE[function](target.api, [x[key] for key in keys], CLIPS)
    after, changed = target.read(x), np.zeros(base.shape, bool)
    for key in keys:
        changed[key] = True
        assert np.abs(after[key]).max() < np.abs(base[key]).max()
    assert_same_bits(after[~changed], base[~changed])


@pytest.mark.needs("writable", "views")
def test_transposed(target: Target) -> None:
    """So is a transposed array, in its own order."""
    base = normal((5, 70), "float32")
    x = target.make(base, "float32")
    target.api.clip_by_global_norm_([target.transposed(x)], CLIPS)
    (right,) = read(target, clip(target, "clip_by_global_norm", [target.make(base, "float32")], CLIPS))
    np.testing.assert_allclose(target.read(x), right, rtol=1e-6)


@pytest.mark.needs("eager", "!writable")
@pytest.mark.parametrize("function", IN_PLACE)
def test_immutable_arrays(target: Target, function: str) -> None:
    """Arrays that cannot be written raise TypeError, and the message names the function that returns new ones."""
    x = target.make(normal(4, "float32"), "float32")
    if not hasattr(target.api, function):
        return
    with pytest.raises(TypeError, match=rf"{function[:-1]}\(\)"):
        IN_PLACE[function](target.api, [x], CLIPS)


@pytest.mark.parametrize("function", IN_PLACE)
def test_read_only_numpy(function: str) -> None:
    """Read-only NumPy arrays are refused, and arrays beside them are not written."""
    gradclip = pytest.importorskip("gradclip")
    free, frozen = np.full(3, 7.0), np.full(3, 7.0)
    frozen.setflags(write=False)
    for leaves in ([free, frozen], [free, np.broadcast_to(np.array([7.0]), (3,))]):
        with pytest.raises(TypeError, match=rf"grads\[1\].*{function[:-1]}\(\)"):
            IN_PLACE[function](gradclip, leaves, CLIPS)
    assert_same_bits(free, _sevens())


@pytest.mark.needs("writable")
@pytest.mark.parametrize("function", IN_PLACE)
def test_empty_and_0d(target: Target, function: str) -> None:
    """Empty leaves and 0-d leaves are written as any other."""
    grads = make(target, [(np.zeros((0, 3)), "float32"), (np.array(9.0), "float32")])
    IN_PLACE[function](target.api, grads, CLIPS)
    empty, scalar = read(target, grads)
    assert empty.shape == (0, 3)
    assert scalar.shape == ()
    assert 0 < float(scalar) < 9


def _sevens() -> Values:
    return np.full(3, 7.0)
