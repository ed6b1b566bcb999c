"""Clause 12: in place keeps storage, views, strides and identity; what cannot be written is refused by name."""

from typing import Any

import numpy as np
import pytest

from gradclip.conformance import oracles
from gradclip.conformance.checks import assert_norm_of, assert_same_bits, assert_times
from gradclip.conformance.helpers import CLIPS, IN_PLACE, PURE, clip, make, number, read
from gradclip.conformance.oracles import exact
from gradclip.conformance.targets import Target
from gradclip.conformance.values import model, normal


@pytest.mark.needs("writable")
@pytest.mark.parametrize("function", IN_PLACE)
def test_same_as_pure(target: Target, real_dtype: str, function: str) -> None:
    """In place makes of the leaves what the pure function returns."""
    leaves = model(real_dtype)
    grads = make(target, leaves)
    pure = read(target, clip(target, function.rstrip("_"), make(target, leaves), 0.25))
    IN_PLACE[function](target.api, grads, 0.25)
    for got, right in zip(read(target, grads), pure, strict=True):
        assert_times(got, right, exact(1), real_dtype)


@pytest.mark.needs("writable")
def test_what_is_returned(target: Target) -> None:
    """clip_by_global_norm_ returns the norm before clipping; the others return nothing, as in Python's own sort."""
    values = normal(4, "float32")
    api = target.api
    norm = api.clip_by_global_norm_([target.make(values, "float32")], CLIPS)
    assert_norm_of(number(target, norm), [values], ["float32"])
    x, w = make(target, [(values, "float32")] * 2)
    returned = [
        api.clip_by_norm_(x, CLIPS),
        api.clip_by_rms_(x, CLIPS),
        api.clip_by_value_(x, CLIPS),
        api.adaptive_grad_clip_(x, w, CLIPS),
        api.clip_with_norm_(x, CLIPS, 1.0),
    ]
    assert returned == [None] * 5


@pytest.mark.needs("views")
@pytest.mark.parametrize("function", IN_PLACE)
def test_views_see_it(target: Target, real_dtype: str, function: str) -> None:
    """A view made before shows the clipped values, and so does the base of a view that was clipped."""
    values = normal((4, 6), real_dtype)
    x = target.make(values, real_dtype)
    row, transposed = x[1, ...], target.transposed(x)
    IN_PLACE[function](target.api, [x], CLIPS)
    clipped = target.read(x)
    assert not np.array_equal(clipped, values)
    assert_same_bits(target.read(row), clipped[1])
    assert_same_bits(target.read(transposed), clipped.T)
    base = target.make(values, real_dtype)
    IN_PLACE[function](target.api, [base[1:3, ::2]], CLIPS)
    inside = np.zeros((4, 6), bool)
    inside[1:3, ::2] = True
    assert np.array_equal(target.read(base)[~inside], values[~inside])
    assert np.all(target.read(base)[inside] != values[inside])


@pytest.mark.needs("views")
def test_layouts(target: Target, real_dtype: str) -> None:
    """Transposed and strided leaves are written where they lie."""
    values = normal((5, 4, 3), real_dtype)
    x = target.make(values, real_dtype)
    target.api.clip_by_global_norm_([target.transposed(x)], 0.5)
    assert_times(target.read(x), values, exact(0.5) / oracles.norm([values]), real_dtype)


@pytest.mark.needs("numpy")
@pytest.mark.parametrize("order", ["C", "F", "reversed", "swapped bytes", "unaligned"])
@pytest.mark.parametrize("function", IN_PLACE)
def test_numpy_layouts(target: Target, function: str, order: str) -> None:
    """NumPy: Fortran order, negative strides, the other byte order and unaligned memory; address and strides stay."""
    values = normal((4, 5), "float32").astype(np.float32)
    x = _laid_out(values, order)
    interface, strides, flags = x.__array_interface__, x.strides, str(x.flags)
    right = read(target, clip(target, function.rstrip("_"), [values.copy()], 0.25))[0]
    IN_PLACE[function](target.api, [x], 0.25)
    assert (x.__array_interface__, x.strides, str(x.flags)) == (interface, strides, flags)
    assert_times(x.astype(float), right, exact(1), "float32")


def _laid_out(values: np.ndarray, order: str) -> np.ndarray:
    if order == "reversed":
        return values[::-1, ::-1].copy()[::-1, ::-1]
    if order == "swapped bytes":
        return values.astype(values.dtype.newbyteorder())
    if order == "unaligned":
        memory = np.zeros(values.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(values.shape)
        memory[...] = values
        return memory
    return values.copy(order=order)  # type: ignore[call-overload]  # "C" or "F"


@pytest.mark.needs("writable")
@pytest.mark.parametrize("function", IN_PLACE)
def test_containers_stay(target: Target, function: str) -> None:
    """The container and its leaves are the same objects after as before."""
    grads = {"x": make(target, model("float32")), "y": (target.make(normal(3, "float32"), "float32"), None)}
    ids = [id(x) for x in (grads["x"], *grads["x"], grads["y"], *grads["y"])]
    IN_PLACE[function](target.api, grads, CLIPS)
    assert ids == [id(x) for x in (grads["x"], *grads["x"], grads["y"], *grads["y"])]
    assert np.all(np.abs(target.read(grads["y"][0])) < 1)


@pytest.mark.needs("!writable")
@pytest.mark.parametrize("function", IN_PLACE)
def test_immutable(target: Target, function: str) -> None:
    """Arrays that cannot be written: TypeError that names the pure function, and nothing changes."""
    values = normal(4, "float32")
    x = target.make(values, "float32")
    with pytest.raises(TypeError, match=rf"{function.rstrip('_')}\b"):
        target.run(lambda g: IN_PLACE[function](target.api, [g], CLIPS), x)
    assert_same_bits(target.read(x), values)


@pytest.mark.needs("numpy")
@pytest.mark.parametrize("function", IN_PLACE)
@pytest.mark.parametrize("limit", [CLIPS, 1e4], ids=["clipped", "unclipped"])
def test_read_only_numpy(target: Target, function: str, limit: float) -> None:
    """A read-only NumPy array, whether it would be clipped or not; the pure function takes it."""
    x = normal(4, "float32").astype(np.float32)
    x.flags.writeable = False
    with pytest.raises(TypeError, match=rf"{function.rstrip('_')}\b"):
        IN_PLACE[function](target.api, [x], limit)
    assert np.asarray(PURE[function.rstrip("_")](target.api, [x], limit)[0]).shape == (4,)


@pytest.mark.needs("writable")
def test_scalar_leaf(target: Target, real_dtype: str) -> None:
    """A 0-d leaf is written where it is."""
    x: Any = target.make(np.array(-4.0), real_dtype)
    target.api.clip_by_global_norm_([x], 0.5)
    assert target.read(x) == -0.5
