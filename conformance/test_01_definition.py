"""Clause 1: the global norm is that of all leaves laid end to end, of any order p > 0 or inf; |z| for complex."""

import math

import numpy as np
import pytest

from gradclip.conformance import oracles
from gradclip.conformance.checks import assert_norm, assert_norm_of
from gradclip.conformance.helpers import PURE, clip, make, number, read
from gradclip.conformance.oracles import norm_dtype
from gradclip.conformance.targets import Target
from gradclip.conformance.values import ORDERS, SHAPES, is_complex, model, normal, representable


@pytest.mark.parametrize("ord", ORDERS)
def test_all_leaves_end_to_end(target: Target, dtype: str, ord: float) -> None:
    """The norm of leaves of all shapes is that of one vector of all their elements."""
    leaves = model(dtype)
    got = number(target, target.run(lambda g: target.api.global_norm(g, ord=ord), make(target, leaves)))
    assert_norm_of(got, [values for values, _ in leaves], [dtype], ord)


@pytest.mark.parametrize("ord", ORDERS)
def test_partition_does_not_matter(target: Target, dtype: str, ord: float) -> None:
    """One vector, and the same vector in pieces, have the same norm."""
    values = normal(12, dtype, seed=5)
    whole = number(target, target.run(lambda g: target.api.global_norm(g, ord=ord), target.make(values, dtype)))
    pieces = make(target, [(part, dtype) for part in np.split(values, [0, 1, 5, 5, 11])])
    cut = number(target, target.run(lambda g: target.api.global_norm(g, ord=ord), pieces))
    assert_norm_of(whole, [values], [dtype], ord)
    assert_norm_of(cut, [values], [dtype], ord)


def test_complex_magnitude(target: Target, complex_dtype: str) -> None:
    """A complex number counts by |z|: 3+4i counts as 5, in every order."""
    grads = [target.make(np.array([3 + 4j]), complex_dtype), target.make(np.array(-12 + 0j), complex_dtype)]
    for order, right in ((1.0, 17.0), (2.0, 13.0), (3.0, (125 + 1728) ** (1 / 3)), (math.inf, 12.0)):
        got = number(target, target.run(lambda g, p=order: target.api.global_norm(g, ord=p), grads))
        assert got == pytest.approx(right, rel=1e-6)


@pytest.mark.parametrize("container", [{}, [], (), None, [None, {"a": None}]], ids=repr)
def test_empty_container(target: Target, container: object) -> None:
    """The norm of nothing is 0."""
    assert float(np.asarray(target.api.global_norm(container))) == 0
    clipped, norm = target.api.clip_by_global_norm(container, 1.0)
    assert clipped == container
    assert float(np.asarray(norm)) == 0
    assert np.asarray(norm).shape == ()


@pytest.mark.parametrize("ord", ORDERS)
def test_empty_leaf(target: Target, dtype: str, ord: float) -> None:
    """An empty leaf contributes 0, beside others and alone, in every order."""
    empty = np.zeros((2, 0, 3), complex if is_complex(dtype) else float)
    other = normal((2,), dtype)
    grads = make(target, [(empty, dtype), (other, dtype), (empty[0], dtype)])
    both, alone = target.run(
        lambda g: (target.api.global_norm(g, ord=ord), target.api.global_norm([g[0]], ord=ord)), grads
    )
    assert_norm_of(number(target, both), [other], [dtype], ord)
    assert number(target, alone) == 0


def test_scalar_leaf(target: Target, dtype: str) -> None:
    """A 0-d leaf is a leaf like others, as one of several and as the whole container."""
    value, beside = representable(-1.5, dtype), representable([2.0], dtype)
    scalar, vector = make(target, [(value, dtype), (beside, dtype)])
    alone, both = target.run(lambda a, b: (target.api.global_norm(a), target.api.global_norm([a, b])), scalar, vector)
    assert number(target, alone) == 1.5
    assert number(target, both) == 2.5


@pytest.mark.parametrize("function", PURE)
def test_scalar_leaf_is_clipped(target: Target, real_dtype: str, function: str) -> None:
    """Every clipping function takes 0-d leaves."""
    got = clip(target, function, [target.make(np.array(-2.0), real_dtype)], 0.5)
    assert target.read(got[0]) == (-1.0 if function == "adaptive_grad_clip" else -0.5)  # 0.5 of the parameter's norm, 2


def test_norm_dtype(target: Target, dtype: str) -> None:
    """The norm is float64 if any leaf is float64 or complex128, else float32; always real and 0-d."""
    norm = target.run(target.api.global_norm, make(target, model(dtype)))
    assert norm.shape == ()
    assert target.dtype(norm) == norm_dtype([dtype])
    norms = target.run(target.api.leaf_norms, make(target, model(dtype)))
    assert {target.dtype(n) for n in norms} == {norm_dtype([dtype])}


def test_norm_of_mixed_dtypes(target: Target) -> None:
    """Leaves of all dtypes together: each counts with its exact values."""
    leaves = model(target.dtypes, seed=3)
    norm = target.run(target.api.global_norm, make(target, leaves))
    assert target.dtype(norm) == norm_dtype([d for _, d in leaves])
    assert_norm(number(target, norm), oracles.norm([v for v, _ in leaves]), "float32")


@pytest.mark.parametrize("ord", ORDERS)
def test_leaf_norms(target: Target, dtype: str, ord: float) -> None:
    """leaf_norms puts a leaf's own norm in its place."""
    leaves = model(dtype)
    norms = target.run(lambda g: target.api.leaf_norms(g, ord=ord), make(target, leaves))
    assert len(norms) == len(SHAPES)
    for got, (values, _) in zip(norms, leaves, strict=True):
        assert_norm_of(number(target, got), [values], [dtype], ord)


@pytest.mark.parametrize("ord", ORDERS)
def test_partials_merge(target: Target, dtype: str, ord: float) -> None:
    """The norm of merged partials is that of all their leaves, in whatever order they merge."""
    parts = [normal(n, dtype, seed=n) for n in (5, 0, 3, 8)]

    def merged(a: object, b: object, c: object, d: object) -> tuple[object, object]:
        pa, pb, pc, pd = (target.api.norm_partial(x, ord=ord) for x in (a, b, c, d))
        return pa.merge(pb).merge(pc).merge(pd).norm(), pd.merge(pc.merge(pa)).merge(pb).norm()

    for norm in read(target, target.run(merged, *(target.make(p, dtype) for p in parts))):
        assert_norm_of(float(norm), parts, [dtype], ord)
