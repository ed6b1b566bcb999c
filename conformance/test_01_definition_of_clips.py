"""Clause 1, continued: what each clipping function is by definition."""

import math
from typing import Any

import numpy as np
import pytest

from gradclip.conformance import oracles
from gradclip.conformance.checks import assert_close, assert_times
from gradclip.conformance.helpers import make, number, read
from gradclip.conformance.oracles import coefficient, component, exact, scaled
from gradclip.conformance.targets import Target
from gradclip.conformance.values import ORDERS, is_complex, model, normal


@pytest.mark.parametrize("ord", ORDERS)
def test_by_global_norm(target: Target, dtype: str, ord: float) -> None:
    """All leaves times one coefficient, max_norm / norm; the norm before clipping is returned."""
    leaves = model(dtype)
    clipped, norm = target.run(lambda g: target.api.clip_by_global_norm(g, 0.5, ord=ord), make(target, leaves))
    right = oracles.norm([v for v, _ in leaves], ord)
    assert number(target, norm) == pytest.approx(float(right), rel=1e-6)
    for got, (values, _) in zip(read(target, clipped), leaves, strict=True):
        assert_times(got, values, coefficient(right, 0.5), dtype, ord)


@pytest.mark.parametrize("ord", ORDERS)
def test_by_norm(target: Target, dtype: str, ord: float) -> None:
    """clip_by_norm: each leaf by its own norm."""
    leaves = model(dtype, size=0.3)
    clipped = target.run(lambda g: target.api.clip_by_norm(g, 0.5, ord=ord), make(target, leaves))
    for got, (values, _) in zip(read(target, clipped), leaves, strict=True):
        assert_times(got, values, coefficient(oracles.norm([values], ord), 0.5), dtype, ord)


def test_by_rms(target: Target, dtype: str) -> None:
    """clip_by_rms: each leaf by its own root mean square; an empty leaf stays."""
    leaves = model(dtype)
    clipped = target.run(lambda g: target.api.clip_by_rms(g, 0.75), make(target, leaves))
    for got, (values, _) in zip(read(target, clipped), leaves, strict=True):
        assert_times(got, values, coefficient(oracles.rms(values), 0.75), dtype)


def _assert_units(got: Any, grad: Any, weight: Any, axes: tuple[int, ...], dtype: str) -> None:
    for key, unit in oracles.units(grad, axes):
        size = max(oracles.norm([weight[key]]), exact(1e-3)) * exact(0.25)
        assert_times(got[key], unit, coefficient(oracles.norm([unit]), size), dtype)


@pytest.mark.parametrize("shape", [(5,), (1, 6), (3, 4), (1, 1, 5), (2, 3, 2), (2, 2, 3, 2), (2, 2, 1, 2, 2)], ids=str)
def test_adaptive_units(target: Target, dtype: str, shape: tuple[int, ...]) -> None:
    """adaptive_grad_clip: each unit by clipping times the norm of its parameters, the units those of optax."""
    grad, weight = normal(shape, dtype, 1), normal(shape, dtype, 2)
    clipped = target.run(
        lambda g, w: target.api.adaptive_grad_clip(g, w, 0.25), *make(target, [(grad, dtype), (weight, dtype)])
    )
    _assert_units(target.read(clipped), grad, weight, oracles.unit_axes(shape), dtype)


@pytest.mark.parametrize(("axis", "axes"), [(0, (0,)), (-1, (2,)), ((1, 2), (1, 2)), ((0, 1, 2), (0, 1, 2))], ids=str)
def test_adaptive_axis(target: Target, dtype: str, axis: Any, axes: tuple[int, ...]) -> None:
    """axis= says which axes make up a unit, as for PyTorch's layouts."""
    grad, weight = normal((3, 2, 4), dtype, 1), normal((3, 2, 4), dtype, 2)
    clipped = target.run(
        lambda g, w: target.api.adaptive_grad_clip(g, w, 0.25, axis=axis),
        *make(target, [(grad, dtype), (weight, dtype)]),
    )
    _assert_units(target.read(clipped), grad, weight, axes, dtype)


def test_adaptive_floor(target: Target, dtype: str) -> None:
    """The norm of parameters counts as eps at least, so that parameters that are zero can move."""
    grad, weight = normal((3, 4), dtype, 1), np.zeros((3, 4), complex if is_complex(dtype) else float)
    pair = make(target, [(grad, dtype), (weight, dtype)])
    clipped = target.run(lambda g, w: target.api.adaptive_grad_clip(g, w, 0.25, axis=0), *pair)
    _assert_units(target.read(clipped), grad, weight, (0,), dtype)
    higher = target.run(lambda g, w: target.api.adaptive_grad_clip(g, w, 0.25, eps=0.5, axis=0), *pair)
    for key, unit in oracles.units(grad, (0,)):
        assert_times(target.read(higher)[key], unit, coefficient(oracles.norm([unit]), 0.125), dtype)


def test_per_example(target: Target, dtype: str) -> None:
    """clip_per_example: each example by its norm over all leaves, then the sum, and how many were clipped."""
    leaves = [normal((4, 3), dtype, 1), normal((4,), dtype, 2), normal((4, 2, 2), dtype, 3)]
    for x in leaves:
        x[2] *= 2.0**-6  # one example that is not clipped
    summed, count = target.run(
        lambda g: target.api.clip_per_example(g, 0.5), make(target, [(x, dtype) for x in leaves])
    )
    norms = [oracles.norm([x[i] for x in leaves]) for i in range(4)]
    assert number(target, count) == sum(n > 0.5 for n in norms) == 3
    assert "int" in target.dtype(count)
    for got, x in zip(read(target, summed), leaves, strict=True):
        rows = [scaled(x[i], coefficient(norms[i], 0.5)) for i in range(4)]
        right = [sum(column) for column in zip(*rows, strict=True)]
        most = max(abs(v) for row in rows for v in row)
        off = max(abs(exact(a) - b) for a, b in zip(oracles.components(got).tolist(), right, strict=True))
        assert off <= 4 * oracles.ulp(most, dtype)  # a sum is as exact as its largest terms
        assert target.dtype(summed[0]) == dtype


@pytest.mark.parametrize("kind", ["number", "array", "partial"])
def test_with_norm(target: Target, dtype: str, kind: str) -> None:
    """clip_with_norm: by a norm that was reduced elsewhere, as a number, a 0-d array or a NormPartial."""
    here, there = normal(5, dtype, 1), normal(7, dtype, 2)
    whole = oracles.norm([here, there])
    wide = "float64" if component(dtype) == "float64" else "float32"
    given = target.make(np.array(oracles.round_to(whole, wide)), wide)

    def clipped(a: Any, b: Any, norm: Any) -> Any:
        partial = target.api.norm_partial(a).merge(target.api.norm_partial(b))
        known = {"number": oracles.round_to(whole, wide), "array": norm, "partial": partial}[kind]
        return target.api.clip_with_norm([a], 0.5, known)

    got = target.run(clipped, *make(target, [(here, dtype), (there, dtype)]), given)
    assert_close(target.read(got[0]), scaled(here, coefficient(whole, 0.5)), dtype)


def test_threshold_as_array(target: Target, dtype: str) -> None:
    """max_norm may be a 0-d array, as a schedule makes it."""
    values = normal(6, dtype)
    grads, limit = [target.make(values, dtype)], target.make(np.array(0.5), "float32")
    (clipped,), _ = target.run(lambda g, m: target.api.clip_by_global_norm(g, m), grads, limit)
    assert_times(target.read(clipped), values, coefficient(oracles.norm([values]), 0.5), dtype)


def test_eps(target: Target, dtype: str) -> None:
    """The option eps is added to the norm, in the comparison and in the denominator."""
    values = normal(6, dtype)
    size = oracles.norm([values])
    for eps, limit in ((1e-6, 0.5), (0.5, 0.5), (0.5, float(size) + 0.25), (0.25, float(size) + 0.5)):
        got, _ = target.run(
            lambda g, m=limit, e=eps: target.api.clip_by_global_norm(g, m, eps=e), target.make(values, dtype)
        )
        assert_times(target.read(got), values, coefficient(size, limit, eps), dtype)


def test_none_is_no_clipping(target: Target, dtype: str) -> None:
    """max_norm=None: the norm only; the gradients come back as they are."""
    values = normal(6, dtype, size=100)
    (same,), norm = target.run(lambda g: target.api.clip_by_global_norm(g, None), [target.make(values, dtype)])
    assert np.array_equal(target.read(same), values)
    assert math.isclose(number(target, norm), float(oracles.norm([values])), rel_tol=1e-6)
