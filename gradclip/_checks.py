"""Checks of arguments. Each error message says what was passed, what was expected, and the remedy.

All checks run before the first write.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from gradclip import _dtypes
from gradclip import _namespace as ns
from gradclip._memory import overlapping_pair, overlaps_itself, owns_all
from gradclip._number import as_number, known_value
from gradclip._partial import NormPartial
from gradclip._types import AnyArray, AnyScalar, Nonfinite
from gradclip._words import a, short

_NONFINITE: dict[str, Nonfinite] = {"propagate": "propagate", "error": "error", "zero": "zero"}


def threshold(value: object, name: str, *, optional: bool = True) -> AnyScalar | None:
    """Return a threshold as a float, a 0-d array or None; if its value is known, it is >= 0 and not NaN.

    Raises
    ------
    TypeError
        If it is not a number or a 0-d array.
    ValueError
        If it is negative or NaN.
    """
    if value is None and optional:
        return None
    number = as_number(value, name, "None for no clipping" if optional else "math.inf for no bound")
    if (seen := known_value(number)) is not None and not seen >= 0:
        raise ValueError(
            f"{name}={short(value)}, expected a number >= 0: a negative or NaN threshold would reverse or destroy the "
            f"gradients; pass {name}=math.inf to leave them as they are"
        )
    return number


def live_threshold(value: object, name: str, *, optional: bool = True) -> AnyScalar | None:
    """Return a checked threshold for later use: a number as a float; an array itself, whose value may change."""
    checked = threshold(value, name, optional=optional)
    return value if ns.is_array(value) and not isinstance(value, np.generic) else checked


def order(value: object, name: str = "ord") -> float:
    """Return the order of a norm as a float, greater than 0."""
    number = as_number(value, name, "math.inf for the largest element")
    if not isinstance(number, float):
        raise TypeError(f"{name}={short(value)}, expected a Python number: an order is no array; pass float({name})")
    if not number > 0:
        raise ValueError(
            f"{name}={short(value)}, expected a number > 0 or math.inf; orders <= 0 are not norms. "
            f"Pass {name}=2.0 for the Euclidean norm"
        )
    return number


def positive(value: object, name: str, remedy: str) -> AnyScalar:
    """Return a number that is positive and finite."""
    number = as_number(value, name, remedy)
    if (seen := known_value(number)) is not None and not 0 < seen < math.inf:
        raise ValueError(f"{name}={short(value)}, expected a finite number > 0; pass {remedy}")
    return number


def known_norm(value: object, name: str = "norm") -> AnyScalar | NormPartial:
    """Return a norm that the caller passes: a float >= 0, a 0-d array, or a 0-d NormPartial."""
    if isinstance(value, NormPartial):
        return value
    number = as_number(value, name, "a NormPartial")
    if (seen := known_value(number)) is not None and seen < 0:
        raise ValueError(f"{name}={short(value)}, expected a norm, which is >= 0; pass the norm of the whole")
    return number


def not_negative(value: object, name: str) -> AnyScalar:
    """Return a number that is finite and at least 0."""
    number = as_number(value, name, "0.0 for none")
    if (seen := known_value(number)) is not None and not 0 <= seen < math.inf:
        raise ValueError(f"{name}={short(value)}, expected a finite number >= 0; pass {name}=0.0 for none")
    return number


def bounds(max_value: object, min_value: object) -> tuple[AnyScalar, AnyScalar]:
    """Return the lower and the upper bound of clipping by value."""
    if min_value is None:
        high: AnyScalar = threshold(max_value, "max_value", optional=False)
        return -high, high
    low, high = (as_number(v, name, "math.inf") for v, name in ((min_value, "min_value"), (max_value, "max_value")))
    least, most = known_value(low), known_value(high)
    for value, name in ((least, "min_value"), (most, "max_value")):
        if value is not None and math.isnan(value):
            raise ValueError(f"{name}={short(value)}, expected a number; pass math.inf or -math.inf for no bound")
    if least is not None and most is not None and least > most:
        raise ValueError(
            f"min_value={short(min_value)} is above max_value={short(max_value)}, expected min_value <= max_value; "
            "swap them"
        )
    return low, high


def nonfinite(value: object) -> Nonfinite:
    """Return the name of what to do with NaN and inf."""
    if not isinstance(value, str) or value not in _NONFINITE:
        raise ValueError(
            f"nonfinite={short(value)}, expected one of {', '.join(map(repr, _NONFINITE))}; pass one of them"
        )
    return _NONFINITE[value]


_OTHER_LIBRARIES = {
    "tensorflow": "use tf.clip_by_global_norm() or Keras's global_clipnorm=, or outside of tf.function pass x.numpy()",
    "paddle": "pass numpy.from_dlpack(x.detach()), through which functions in place write to a tensor on the CPU",
    "tinygrad": "pass x.numpy(), and make a Tensor of what is returned",
}
"""For libraries whose arrays have no namespace of the array API standard, what to pass instead."""


def leaf(x: AnyArray, paths: Callable[[], list[str]], position: int) -> None:
    """Check that a leaf is an array of real or complex floating-point numbers.

    Raises
    ------
    TypeError
        If it is not, with its path.
    """
    if not ns.is_array(x):
        raise TypeError(
            f"{paths()[position]} is {a(type(x).__name__)}, expected an array, or a list, tuple, dict or dataclass of "
            f"arrays; {_instead(x)}"
        )
    if not ns.has_device(x):
        raise TypeError(
            f"{paths()[position]} is of type {type(x).__module__}.{type(x).__qualname__}, which has no .device, "
            "expected an array that follows the Python array API standard; convert it to one, for example with "
            "numpy.asarray()"
        )
    if not _dtypes.is_floating(x.dtype):
        raise TypeError(
            f"{paths()[position]} has dtype {x.dtype}, expected real or complex floating-point gradients of at most "
            "double precision; leave it out, put None in its place, or convert it to such a dtype"
        )


def _instead(x: object) -> str:
    """Return what to pass instead of an object that is no array."""
    if hasattr(x, "__next__"):
        return "pass list(...) of it"
    libraries = {base.__module__.partition(".")[0] for base in type(x).__mro__}
    if found := libraries & _OTHER_LIBRARIES.keys():
        return _OTHER_LIBRARIES[found.pop()]
    if any(base.__module__.startswith("torch.") for base in type(x).__mro__):
        return "pass gradients, or use gradclip.backends.torch, whose functions take modules and optimizers"
    return "pass an array, or None for no gradient"


def not_complex(x: AnyArray, paths: Callable[[], list[str]], position: int) -> None:
    """Check that a leaf is not complex, because complex numbers cannot be compared with bounds."""
    if _dtypes.is_complex(x.dtype):
        raise TypeError(
            f"{paths()[position]} has dtype {x.dtype}, expected real gradients: complex numbers have no order to clip "
            "by value; clip by norm, or clip real and imaginary parts by themselves"
        )


def lengths(leaves: Sequence[AnyArray], paths: Callable[[], list[str]], remedy: str = "") -> None:
    """Check that the length of each axis of each leaf is known.

    Raises
    ------
    ValueError
        If one is not: in Dask, it may depend on values. ``remedy`` is added to the message.
    """
    if not ns.may_lack_lengths(leaves):
        return
    for i, x in enumerate(leaves):
        if any(n != n for n in x.shape):
            raise ValueError(
                f"{paths()[i]} has shape {tuple(x.shape)}, expected axes of known lengths: this way of clipping "
                f"needs them; call compute_chunk_sizes() on it first{remedy}"
            )


def mixed(kinds: Sequence[tuple[str, str]]) -> NoReturn:
    """Raise TypeError for leaves of different libraries, given as (path, type)."""
    (path, kind), (other_path, other) = kinds[0], next(k for k in kinds if k[1] != kinds[0][1])
    raise TypeError(
        f"{path} is {a(kind)} and {other_path} {a(other)}, expected arrays of one library; convert them to one, or "
        "merge the norm_partial() of each and apply it with clip_with_norm()"
    )


def writable(
    leaves: Sequence[AnyArray],
    paths: Callable[[], list[str]],
    pure: str,
    apart: Callable[[Sequence[AnyArray]], bool] = lambda _: False,
) -> None:
    """Check that every leaf can be written in place, and that no element would be written twice.

    Parameters
    ----------
    leaves, paths
        The leaves, and what gives each a name.
    pure : str
        The function that returns new arrays.
    apart : callable
        Tells of leaves whether it is known that no two of their elements share memory.

    Raises
    ------
    TypeError
        If a leaf is read-only or immutable; the message names the pure function.
    ValueError
        If a leaf overlaps itself or another one, or has axes of unknown lengths.
    RuntimeError
        As for `not_frozen`.
    """
    kinds: set[Any] = set(map(type, leaves))
    if ns.are_writable(leaves, kinds) and (owns_all(leaves, kinds) or apart(leaves)):
        return
    lengths(leaves, paths, f", or use gradclip.{pure}(), which returns new arrays")
    not_frozen(leaves, paths, pure)
    for i, x in enumerate(leaves):
        if not ns.is_writable(x):
            raise TypeError(
                f"{paths()[i]} is {a(type(x).__name__)} that cannot be written, expected writable arrays; "
                f"use gradclip.{pure}(), which returns new arrays"
            )
        if overlaps_itself(x):
            raise ValueError(
                f"{paths()[i]} overlaps itself in memory (a broadcast or sliding view), expected each element in a "
                f"place of its own: it would be scaled more than once; pass a copy, or use gradclip.{pure}()"
            )
    pair = overlapping_pair(leaves)
    if pair is not None:
        raise ValueError(
            f"{paths()[pair[0]]} and {paths()[pair[1]]} overlap in memory, expected leaves that share no element: it "
            f"would be scaled twice; pass the array that both are views of, or use gradclip.{pure}()"
        )


def not_frozen(leaves: Sequence[AnyArray], paths: Callable[[], list[str]], pure: str) -> None:
    """Check that PyTorch lets every leaf be written in place.

    Raises
    ------
    RuntimeError
        If a leaf is a tensor of inference mode, and this is outside of it. PyTorch raises the same error, but only
        after it has written to the tensor.
    """
    for i, x in enumerate(leaves):
        if ns.is_frozen(x):
            raise RuntimeError(
                f"Inplace update to inference tensor outside InferenceMode is not allowed: {paths()[i]} was made in "
                "torch.inference_mode(), expected a tensor that was not; call the function in that mode, pass a clone "
                f"that was made outside of it, or use gradclip.{pure}(), which returns new arrays"
            )
