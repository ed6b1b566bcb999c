"""Arguments: what came, what was expected, the remedy; before anything is written."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

import gradclip


def calls(**arguments):
    """Every function that takes these arguments, on gradients of ones."""
    everywhere = [gradclip.clip_by_global_norm, gradclip.clip_by_global_norm_]
    for function in everywhere:
        grads = np.ones(4)
        yield lambda f=function, g=grads: f([g], **{"max_norm": 1.0, **arguments}), grads


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"max_norm": -1}, ValueError, r"max_norm=-1, expected a number >= 0.*pass max_norm=math.inf to leave them"),
        ({"max_norm": math.nan}, ValueError, r"max_norm=nan, expected a number >= 0"),
        ({"max_norm": np.array(-2.0)}, ValueError, r"max_norm=array\(-2\.\), expected a number >= 0"),
        ({"max_norm": "1"}, TypeError, r"max_norm='1' is a str, expected a real number .*pass max_norm=float\('1'\)$"),
        ({"max_norm": "1e-3"}, TypeError, r"pass max_norm=float\('1e-3'\) \(YAML reads 1e-3 as a string, 1\.0e-3 as"),
        ({"max_norm": np.str_("1e-3")}, TypeError, r"is a str_, .*pass max_norm=float\('1e-3'\)"),
        ({"max_norm": b"2"}, TypeError, r"max_norm=b'2' is a bytes, .*pass max_norm=float\(b'2'\)$"),
        ({"max_norm": "high"}, TypeError, r"max_norm='high' is a str, .*pass a float, or None for no clipping"),
        ({"max_norm": True}, TypeError, r"max_norm=True is a bool"),
        ({"max_norm": np.True_}, TypeError, r"max_norm has dtype bool, expected a real number"),
        ({"max_norm": 1j}, TypeError, r"max_norm=1j is a complex"),
        ({"max_norm": np.array(1j)}, TypeError, r"max_norm has dtype complex128, expected a real number"),
        ({"max_norm": np.ones(2)}, TypeError, r"max_norm has shape \(2,\), expected a number or a 0-d array"),
        ({"max_norm": np.ones(0)}, TypeError, r"max_norm has shape \(0,\), expected a number or a 0-d array"),
        ({"max_norm": np.array(["1"])}, TypeError, r"max_norm has dtype <U1, expected a real number"),
        ({"max_norm": np.array([True])}, TypeError, r"max_norm has dtype bool, expected a real number"),
        ({"max_norm": Decimal("-0.1")}, ValueError, r"max_norm=Decimal\('-0\.1'\), expected a number >= 0"),
        ({"max_norm": -(10**400)}, ValueError, r"max_norm=-1000.*, expected a number >= 0: .* reverse or destroy"),
        ({"max_norm": [list(range(1000))]}, TypeError, r"max_norm=\[\[0, 1, 2, .*\.\.\.\]\] is a list"),
        ({"ord": 0}, ValueError, r"ord=0, expected a number > 0 or math\.inf.*Pass ord=2\.0"),
        ({"ord": -math.inf}, ValueError, r"ord=-inf, expected a number > 0"),
        ({"ord": math.nan}, ValueError, r"ord=nan, expected a number > 0"),
        ({"ord": "fro"}, TypeError, r"ord='fro' is a str"),
        ({"ord": None}, TypeError, r"ord=None is a NoneType"),
        ({"nonfinite": "skip"}, ValueError, r"nonfinite='skip', expected one of 'propagate', 'error', 'zero'"),
        ({"nonfinite": None}, ValueError, r"nonfinite=None, expected one of"),
        ({"scale": 0}, ValueError, r"scale=0, expected a finite number > 0; pass scale=1\.0"),
        ({"scale": math.inf}, ValueError, r"scale=inf, expected a finite number > 0"),
        ({"scale": -2.0}, ValueError, r"scale=-2\.0, expected a finite number > 0"),
        ({"scale": [1]}, TypeError, r"scale=\[1\] is a list"),
        ({"eps": -1e-6}, ValueError, r"eps=-1e-06, expected a finite number >= 0; pass eps=0\.0 for none"),
        ({"eps": math.nan}, ValueError, r"eps=nan, expected a finite number"),
    ],
)
def test_a_bad_argument_says_what_came_what_was_expected_and_the_remedy(arguments, error, message):
    for call, grads in calls(**arguments):
        with pytest.raises(error, match=message):
            call()
        assert (grads == 1).all()


def test_an_unknown_argument_is_refused():
    with pytest.raises(TypeError, match="norm_type"):
        gradclip.clip_by_global_norm([np.ones(2)], 1.0, norm_type=2)  # type: ignore[call-arg]


ONES = [
    1, 1.0, np.float32(1), np.int64(1), np.array(1.0), np.array(1), Fraction(1), Decimal(1), Decimal("1.0"),
    np.ones(1), np.ones((1, 1), np.float16), np.ones(1, np.uint8), np.ones(1, ">f8"),
]  # fmt: skip


@pytest.mark.parametrize("number", ONES, ids=repr)
def test_any_real_number_is_a_threshold(number):
    clipped, _ = gradclip.clip_by_global_norm([np.ones(4)], number)
    np.testing.assert_array_equal(clipped[0], 0.5)
    np.testing.assert_array_equal(gradclip.clip_by_global_norm([np.ones(4)], 1.0, scale=number)[1], 2)
    np.testing.assert_array_equal(gradclip.clip_by_global_norm([np.ones(4)], 1.0, eps=number)[0][0], 1 / 3)
    np.testing.assert_array_equal(gradclip.clip_by_value([np.full(4, 3.0)], number)[0], 1)
    np.testing.assert_array_equal(gradclip.clip_by_value([np.full(4, -3.0)], 2.0, min_value=number)[0], 1)
    np.testing.assert_array_equal(gradclip.clip_by_norm([np.ones(4)], number)[0], 0.5)
    np.testing.assert_array_equal(gradclip.clip_by_rms([np.full(4, 2.0)], number)[0], 1)
    np.testing.assert_array_equal(gradclip.clip_with_norm([np.full(4, 2.0)], number, 4.0)[0], 0.5)
    np.testing.assert_array_equal(gradclip.clip_with_norm([np.full(4, 2.0)], 0.5, number)[0], 1)
    np.testing.assert_array_equal(gradclip.adaptive_grad_clip([np.full(4, 9.0)], [np.ones(4)], number)[0], 1)
    assert gradclip.global_norm([np.full(4, 3.0)], ord=number) == 12


@pytest.mark.parametrize("huge", [10**400, Fraction(10**400)], ids=["int", "Fraction"])
def test_numbers_beyond_the_range_of_floats_are_infinite(huge):
    grads = np.full(4, 3.0)
    np.testing.assert_array_equal(gradclip.clip_by_global_norm(grads, huge)[0], grads)


@pytest.mark.parametrize("name", ["torch", "jax.numpy", "array_api_strict", "dask.array"])
def test_an_array_of_one_element_is_a_threshold_in_every_namespace(name):
    xp = pytest.importorskip(name)
    for shape in ((), (1,), (1, 1)):
        clipped, _ = gradclip.clip_by_global_norm([xp.ones(4)], xp.ones(shape))
        assert clipped[0].shape == (4,)
        np.testing.assert_array_equal(np.asarray(clipped[0]), 0.5)
    with pytest.raises(TypeError, match=r"max_norm has shape \(2,\)"):
        gradclip.clip_by_global_norm([xp.ones(4)], xp.ones(2))


@pytest.mark.parametrize("ord", [0, -1, math.nan, "2"])
def test_orders_are_checked_by_every_norm(ord):
    for norm in (gradclip.global_norm, gradclip.leaf_norms, gradclip.norm_partial):
        with pytest.raises((ValueError, TypeError), match="ord="):
            norm([np.ones(2)], ord=ord)


def test_one_bad_leaf_stops_everything_before_the_first_write():
    good = np.full(4, 9.0)
    for bad in (np.ones(2, int), "text", 1.0):
        with pytest.raises(TypeError, match=r"grads\['b'\]"):
            gradclip.clip_by_global_norm_({"a": good, "b": bad}, 1.0)
        with pytest.raises(TypeError, match=r"grads\['b'\]"):
            gradclip.clip_by_value_({"a": good, "b": bad}, 1.0)
    assert (good == 9).all()


@pytest.mark.parametrize("number", [Decimal(1), Fraction(1), np.ones(1), np.ones((1, 1), np.float32)], ids=repr)
def test_any_real_number_is_a_threshold_in_jax_and_optax(number):
    adapter = pytest.importorskip("gradclip.backends.jax")
    grads = np.full(4, 2.0, np.float32)
    np.testing.assert_array_equal(adapter.clip_by_global_norm(grads, number)[0], 0.5)
    np.testing.assert_array_equal(adapter.clip_by_value(grads, number), 1)
    np.testing.assert_array_equal(adapter.clip_with_norm(grads, number, 2.0), 1)
    transform = pytest.importorskip("gradclip.backends.optax").clip_by_global_norm(number)
    np.testing.assert_array_equal(transform.update(grads, transform.init(grads))[0], 0.5)


@pytest.mark.parametrize("name", ["jax.numpy", "dask.array"])
def test_a_bound_without_a_sign_bounds_below_too(name):
    xp = pytest.importorskip(name)
    clipped = gradclip.clip_by_value(xp.asarray([3.0, -4.0]), xp.ones((), dtype=xp.uint8))
    np.testing.assert_array_equal(np.asarray(clipped), [1, -1])
