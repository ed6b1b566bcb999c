"""Clause 2: relative error of norms at most 1e-6, for float64 1e-14, at any size and any partition."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradclip.conformance.checks import assert_norm, assert_norm_of
from gradclip.conformance.helpers import examples, make, number, read
from gradclip.conformance.oracles import EXACT, component, norm
from gradclip.conformance.targets import Target
from gradclip.conformance.values import is_complex, normal, representable, spread


def _constant(n: int, dtype: str, value: float = 0.1) -> np.ndarray:
    return representable(np.full(n, value), dtype)


VALUES = {
    "normal": normal,
    "many magnitudes": spread,
    "0.1 again and again": lambda n, dtype: _constant(n, dtype),  # every rounding goes the same way
    "ones": lambda n, dtype: _constant(n, dtype, 1.0),
    "large then small": lambda n, dtype: np.concatenate([_constant(1, dtype, 64.0), _constant(n - 1, dtype, 0.01)]),
}


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("n", [1000, 70_001])
def test_sizes(target: Target, dtype: str, n: int, kind: str) -> None:
    """Against exact arithmetic, for values whose roundings cancel and for values whose roundings add up."""
    values = VALUES[kind](n, dtype)
    got = number(target, target.run(target.api.global_norm, target.make(values, dtype)))
    assert_norm_of(got, [values], [dtype])


@pytest.mark.parametrize("ord", [0.5, 1.0, 3.0, math.inf])
def test_orders(target: Target, real_dtype: str, ord: float) -> None:
    """Other orders than 2 are as exact, over 50,000 elements of 64 magnitudes."""
    few = spread(64, real_dtype)
    values = few[np.random.default_rng(0).integers(0, 64, 50_000)]
    got = number(target, target.run(lambda g: target.api.global_norm(g, ord=ord), target.make(values, real_dtype)))
    assert_norm_of(got, [values], [real_dtype], ord)


@pytest.mark.needs("large")
@pytest.mark.parametrize("kind", ["normal", "0.1 again and again"])
def test_sixteen_million(target: Target, kind: str) -> None:
    """2^24 elements of float32, beyond which a running float32 sum of ones stands still."""
    values = VALUES[kind](1 << 24, "float32")
    got = number(target, target.run(target.api.global_norm, target.make(values, "float32")))
    if kind == "normal":
        assert_norm_of(got, [values], ["float32"])
    else:
        assert_norm(got, EXACT.sqrt(values.size) * norm([values[:1]]), "float32")


def test_half_precision_sums(target: Target, half_dtype: str) -> None:
    """Sums of half precision are float32 at least: 65,536 ones have norm 256, and (300, 300) overflows no square."""
    ones, large = make(target, [(np.ones(65536), half_dtype), (np.array([300.0, 300.0]), half_dtype)])
    norms = target.run(lambda a, b: (target.api.global_norm(a), target.api.global_norm([b])), ones, large)
    assert number(target, norms[0]) == 256
    assert number(target, norms[1]) == pytest.approx(math.sqrt(180_000), rel=1e-6)


@pytest.mark.needs("eager", "host")
def test_thousands_of_leaves(target: Target) -> None:
    """4,000 leaves of norm 1 have norm 63.2456, in bfloat16 too, where adding their norms or squares stops at 16."""
    dtype = "bfloat16" if "bfloat16" in target.dtypes else "float32"
    leaf = np.full(16, 0.25)
    grads = [target.make(leaf, dtype) for _ in range(4000)]
    assert number(target, target.run(target.api.global_norm, grads)) == pytest.approx(math.sqrt(4000), rel=1e-6)


@pytest.mark.needs("quick")
@examples
@given(data=st.data())
def test_partitions(target: Target, data: st.DataObject) -> None:
    """However a vector is cut into leaves, and however the leaves' partials merge, the norm is as exact."""
    dtype = data.draw(st.sampled_from(target.dtypes))
    values = spread(97, dtype, seed=data.draw(st.integers(0, 3)))
    cuts = sorted(data.draw(st.lists(st.integers(0, 97), max_size=4)))
    parts = np.split(values, cuts)
    order = data.draw(st.permutations(range(len(parts))))

    def norms(leaves: list[object]) -> list[object]:
        partials = [target.api.norm_partial(leaves[i]) for i in order]
        merged = partials[0]
        for partial in partials[1:]:
            merged = partial.merge(merged)
        return [target.api.global_norm(leaves), merged.norm()]

    for got in read(target, target.run(norms, make(target, [(part, dtype) for part in parts]))):
        assert_norm_of(float(got), [values], [dtype])


def test_partials_as_a_tree(target: Target, real_dtype: str) -> None:
    """Merging is associative: as ranks on a ring and as ranks in a tree."""
    parts = [spread(11, real_dtype, seed) for seed in range(4)]

    def norms(grads: list[object]) -> list[object]:
        a, b, c, d = (target.api.norm_partial(g) for g in grads)
        return [
            a.merge(b).merge(c).merge(d).norm(),
            a.merge(b).merge(c.merge(d)).norm(),
            d.merge(a.merge(c).merge(b)).norm(),
        ]

    for got in read(target, target.run(norms, make(target, [(part, real_dtype) for part in parts]))):
        assert_norm_of(float(got), parts, [real_dtype])


def test_leaf_norms(target: Target, dtype: str) -> None:
    """Norms of single leaves are as exact as those of all."""
    parts = [spread(n, dtype, seed=n) for n in (3, 1000, 20_001)]
    norms = target.run(target.api.leaf_norms, make(target, [(part, dtype) for part in parts]))
    for got, part in zip(read(target, norms), parts, strict=True):
        assert_norm_of(float(got), [part], [dtype])


@pytest.mark.needs("views")
def test_layouts(target: Target, dtype: str) -> None:
    """Transposed, strided and sliced views have the norm of their elements."""
    values = spread((60, 50, 3), dtype)
    x = target.make(values, dtype)
    views = [(slice(10, 50), ..., 1), (slice(None, None, 7), slice(None, None, 2), ...)]
    for key in views:
        assert_norm_of(number(target, target.api.global_norm(x[key])), [values[key]], [dtype])
    assert_norm_of(number(target, target.api.global_norm(target.transposed(x))), [values], [dtype])


def test_float64_beside_float32(target: Target) -> None:
    """The norm of float32 beside float64 is a float64; each leaf is as exact as its dtype needs."""
    dtypes = [d for d in ("float32", "float64") if d in target.dtypes]
    parts = [spread(1001, d) for d in dtypes]
    got = number(target, target.run(target.api.global_norm, make(target, list(zip(parts, dtypes, strict=True)))))
    assert_norm(got, norm(parts), "float32")  # 1e-6 is what the float32 leaf is good for


def test_zeros_among_numbers(target: Target, dtype: str) -> None:
    """Zeros add nothing, wherever they stand: in a leaf, before it, or as leaves of their own."""
    values = np.zeros(5000, complex if is_complex(dtype) else float)
    values[[17, 4990]] = representable([3.0, 4.0], component(dtype))
    zeros = np.zeros_like(values)
    got = target.run(target.api.global_norm, make(target, [(zeros, dtype), (values, dtype), (zeros, dtype)]))
    assert number(target, got) == 5
