"""Thresholds and orders of every kind that ``torch.nn.utils`` takes, or an error that says how to pass them."""

import math
from decimal import Decimal
from fractions import Fraction
from itertools import cycle

import numpy as np
import pytest
import torch
from torch.nn import Linear, Parameter

from gradclip.backends.torch import (
    attach,
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    clip_in_backward,
    get_total_norm,
    grad_norms,
)
from tests.backends.torch.helpers import param

HALVES = [
    0.5, Decimal("0.5"), Fraction(1, 2), np.float32(0.5), np.float16(0.5), np.array(0.5), np.array([0.5]),
    torch.tensor(0.5), torch.tensor([0.5]), torch.tensor([[0.5]], dtype=torch.float64), Parameter(torch.tensor([0.5])),
]  # fmt: skip


CALLS = {
    "max_norm": lambda p, x: clip_grad_norm_(p, x),
    "clip_value": lambda p, x: clip_grad_value_(p, x),
    "total_norm": lambda p, x: clip_grads_with_norm_(p, 0.25, x),
    "scale": lambda p, x: clip_grad_norm_(p, 10.0, scale=x),
    "eps": lambda p, x: clip_grad_norm_(p, 1.1, eps=x),
}
WITH_A_HALF = {
    "max_norm": ([3.0, 4.0], 5, [0.3, 0.4]),
    "clip_value": ([3.0, -0.25], None, [0.5, -0.25]),
    "total_norm": ([0.3, 0.4], None, [0.15, 0.2]),
    "scale": ([3.0, 4.0], 10, [6.0, 8.0]),
    "eps": ([3.0, 4.0], 5, [0.6, 0.8]),
}
"""For each call with 0.5: gradients, what is returned, clipped gradients."""


def compiled(function):
    torch._dynamo.reset()
    return torch.compile(function, backend="eager")


@pytest.mark.parametrize("half", HALVES, ids=repr)
def test_any_number_is_a_threshold(half):
    for name in CALLS:
        assert_a_half(name, half, CALLS[name])


@pytest.mark.parametrize(("half", "name"), [*zip(HALVES, cycle(CALLS))], ids=repr)
def test_any_number_is_a_threshold_of_what_is_compiled(half, name):
    assert_a_half(name, half, compiled(CALLS[name]))


def assert_a_half(name, half, call):
    """Assert that an argument of 0.5 in any spelling does what 0.5 does."""
    first, norm, clipped = WITH_A_HALF[name]
    p = param(torch.tensor(first))
    assert call([p], half) == norm
    torch.testing.assert_close(p.grad, torch.tensor(clipped))


BAD = [
    ("1e-3", TypeError, r"{name}='1e-3' is a str, .*; pass {name}=float\('1e-3'\) \(YAML reads 1e-3 as a string"),
    ("high", TypeError, r"{name}='high' is a str, expected a real number"),
    (True, TypeError, r"{name}=True is a bool, expected a real number"),
    (torch.tensor(True), TypeError, r"{name} has dtype torch\.bool, expected a real number"),
    (torch.ones(2), TypeError, r"{name} has shape \(2,\), expected a number or a 0-d array"),
    ([1.0], TypeError, r"{name}=\[1\.0\] is a list, expected a real number"),
    (1j, TypeError, r"{name}=1j is a complex, expected a real number"),
    (torch.tensor([-1.0]), ValueError, r"{name}=tensor\(\[-1\.\]\), expected "),
    (-1, ValueError, r"{name}=(-1|tensor\(-1\., dtype=torch.float64\)), expected "),
]


def label(x):
    return repr(x) if not isinstance(x, type) else ""


@pytest.mark.parametrize(("bad", "error", "message"), BAD, ids=label)
@pytest.mark.parametrize("name", CALLS)
def test_what_is_no_threshold_says_how_to_pass_it(name, bad, error, message):
    assert_refused(name, bad, error, message, CALLS[name])


@pytest.mark.parametrize(("name", "refused"), [*zip(cycle(CALLS), BAD)], ids=label)
def test_what_is_compiled_says_how_to_pass_a_threshold(name, refused):
    assert_refused(name, *refused, compiled(CALLS[name]))


def assert_refused(name, bad, error, message, call):
    p = param(torch.tensor([3.0, 4.0]))
    with pytest.raises(error, match=message.format(name=name)):
        call([p], bad)
    assert p.grad.tolist() == [3, 4]


ORDERED = {
    "clip_grad_norm_": lambda p, x: clip_grad_norm_([p], 9.0, x),
    "get_total_norm": lambda p, x: get_total_norm([p.grad], x),
    "grad_norms": lambda p, x: grad_norms([p], x)["parameters[0]"],
}


@pytest.mark.parametrize("call", ORDERED)
def test_orders_are_numbers_or_strings_that_spell_one(call):
    p = param(torch.tensor([3.0, 4.0]))
    for order, want in ((2, 5), ("2", 5), ("inf", 4), (math.inf, 4), (Decimal(1), 7), (torch.tensor([1.0]), 7)):
        assert ORDERED[call](p, order) == want
    for order in ("l2", "fro", "nuc", ""):
        with pytest.raises(
            ValueError, match=rf"norm_type='{order}', expected a number > 0 or \"inf\"; pass norm_type=2"
        ):
            ORDERED[call](p, order)
    for order in (0, "0", "-inf", "nan"):
        with pytest.raises(ValueError, match=r"norm_type=.*, expected a number > 0"):
            ORDERED[call](p, order)
    for order in (None, [2], True):
        with pytest.raises(TypeError, match=r"norm_type=.* expected a real number"):
            ORDERED[call](p, order)


def test_orders_of_what_stays():
    layer = Linear(2, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    attach(optimizer, 1.0, norm_type="inf")
    clip_in_backward(layer, 1.0, norm_type="inf")
    for call in (lambda: attach(optimizer, 1.0, norm_type="l2"), lambda: clip_in_backward(layer, 1.0, norm_type="l2")):
        with pytest.raises(ValueError, match="norm_type='l2', expected"):
            call()


def test_a_scale_in_a_tensor_is_not_compared_on_the_host():
    """Comparing it would wait for its device; it is a tensor of the host here, which must not be asked either."""

    class Asked(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            assert func is not torch.Tensor.__eq__, "its value was compared"
            return super().__torch_function__(func, types, args, kwargs or {})

    p = param(torch.tensor([3.0, 4.0]))
    assert clip_grad_norm_([p], 1.0, scale=torch.tensor(2.0).as_subclass(Asked)) == 2.5
