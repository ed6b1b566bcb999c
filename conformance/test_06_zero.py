"""Clause 6: zeros stay zero, nothing computes 0/0, and the derivative at zero is finite."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gradclip.conformance.helpers import CLIPS, IN_PLACE, LEAVES, PURE, clip, make, number, read
from gradclip.conformance.oracles import component
from gradclip.conformance.targets import Target
from gradclip.conformance.values import ORDERS, is_complex, normal

ZEROS = {
    "all": [(3,), (2, 2)],
    "beside an empty leaf": [(0,), (3,)],
    "one": [(1,)],
}


@pytest.mark.parametrize("limit", [0.0, CLIPS, LEAVES])
@pytest.mark.parametrize("shapes", ZEROS)
@pytest.mark.parametrize("function", PURE)
def test_pure(target: Target, real_dtype: str, function: str, shapes: str, limit: float) -> None:
    """Zeros stay zeros, whatever the threshold, 0 too."""
    grads = make(target, [(np.zeros(shape), real_dtype) for shape in ZEROS[shapes]])
    for got in read(target, clip(target, function, grads, limit)):
        assert np.all(got == 0)


@pytest.mark.needs("writable")
@pytest.mark.parametrize("limit", [0.0, CLIPS, LEAVES])
@pytest.mark.parametrize("function", IN_PLACE)
def test_in_place(target: Target, real_dtype: str, function: str, limit: float) -> None:
    """In place, the same."""
    x = target.make(np.zeros((2, 3)), real_dtype)
    IN_PLACE[function](target.api, [x], limit)
    assert np.all(target.read(x) == 0)


@pytest.mark.parametrize("ord", ORDERS)
def test_norm(target: Target, dtype: str, ord: float) -> None:
    """The norm of zeros is 0 in every order."""
    x = target.make(np.zeros(4, complex if is_complex(dtype) else float), dtype)
    norm, (leaf,) = target.run(lambda g: (target.api.global_norm(g, ord=ord), target.api.leaf_norms([g], ord=ord)), x)
    assert number(target, norm) == number(target, leaf) == 0


def test_zero_leaf_beside_others(target: Target, dtype: str) -> None:
    """A leaf of zeros beside others, a row of zeros among others, and an example of zeros stay zero."""
    values = normal((3, 4), dtype)
    values[1] = 0
    x, zero, w = make(target, [(values, dtype), (values[1], dtype), (normal((3, 4), dtype, 1), dtype)])

    def clips(g: Any, z: Any, p: Any) -> list[Any]:
        api = target.api
        return [
            api.clip_by_global_norm([g, z], 0.5)[0][1],
            api.clip_by_norm([g, z], 0.5)[1],
            api.clip_by_rms([g, z], 0.5)[1],
            api.adaptive_grad_clip(g, p, 0.25, axis=1)[1, ...],
            api.clip_per_example(g[1:2, ...], 0.5)[0],
            api.clip_by_global_norm(g, 0.5)[0][1, ...],
        ]

    for got in read(target, target.run(clips, x, zero, w)):
        assert np.all(got == 0)


def test_adaptive_of_zero_parameters(target: Target, real_dtype: str) -> None:
    """Zero gradients of zero parameters: with eps=0 it would be 0 ≤ 0, not 0/0."""
    zeros = make(target, [(np.zeros((2, 3)), real_dtype), (np.zeros((2, 3)), real_dtype)])
    for eps in (1e-3, 0.0):
        got = target.run(lambda g, w, e=eps: target.api.adaptive_grad_clip(g, w, 0.1, eps=e), *zeros)
        assert np.all(target.read(got) == 0)


def _derivatives(api: Any) -> dict[str, Callable[[Any], Any]]:
    return {
        "global_norm": api.global_norm,
        "global_norm of order 3": lambda g: api.global_norm([g], ord=3.0),
        "leaf_norms": lambda g: api.leaf_norms([g])[0],
        "clip_by_global_norm": lambda g: api.clip_by_global_norm(g, 0.5)[0].sum(),
        "its norm": lambda g: api.clip_by_global_norm(g, 0.5)[1],
        "clip_by_norm": lambda g: api.clip_by_norm(g, 0.5).sum(),
        "clip_by_rms": lambda g: api.clip_by_rms(g, 0.5).sum(),
        "clip_by_value": lambda g: api.clip_by_value(g, 0.5).sum(),
        "adaptive_grad_clip": lambda g: api.adaptive_grad_clip(g, g * 0 + 1, 0.5).sum(),
        "clip_with_norm": lambda g: api.clip_with_norm(g, 0.5, api.global_norm(g)).sum(),
        "clip_per_example": lambda g: api.clip_per_example(g[None, :], 0.5)[0].sum(),
    }


FUNCTIONS = tuple(_derivatives(type("Names", (), {"__getattr__": lambda self, name: None})()))


@pytest.mark.needs("grad")
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("values", [(0.0, 0.0, 0.0), (0.0, 3.0, 4.0)], ids=["zero", "clipped"])
def test_derivative(target: Target, real_dtype: str, function: str, values: tuple[float, ...]) -> None:
    """The derivative at zero is finite; so it is at a zero among others."""
    got = target.read(target.gradient(_derivatives(target.api)[function], target.make(np.array(values), real_dtype)))
    assert np.all(np.isfinite(got)), got


@pytest.mark.needs("grad")
def test_derivative_elsewhere(target: Target, real_dtype: str) -> None:
    """The derivative of the norm is g / norm; that of leaves that are not clipped is 1."""
    x = target.make(np.array([3.0, -4.0]), real_dtype)
    close = {"rtol": 2e-6 if component(real_dtype) in {"float32", "float64"} else 1e-2}
    assert np.allclose(target.read(target.gradient(target.api.global_norm, x)), [0.6, -0.8], **close)
    for clipped in (
        lambda g: target.api.clip_by_global_norm(g, 9.0)[0].sum(),
        lambda g: target.api.clip_by_norm(g, 9.0).sum(),
    ):
        assert np.all(target.read(target.gradient(clipped, x)) == 1)
