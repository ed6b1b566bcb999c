"""Conversion of arguments that ``torch.nn.utils`` takes: orders of norms as strings, parameters as iterators."""

import warnings
from collections.abc import Iterator
from typing import Any

from gradclip import _checks


def norm_order(norm_type: Any) -> float:
    """Return the order of a norm as a float. As in PyTorch, it may be a string of a number, such as "inf".

    Raises
    ------
    TypeError
        If it is not a number.
    ValueError
        If it is not greater than 0, or a string that is no number.
    """
    if isinstance(norm_type, str):
        try:
            norm_type = float(norm_type)
        except ValueError:
            raise ValueError(
                f'norm_type={norm_type!r}, expected a number > 0 or "inf"; pass norm_type=2.0 for the Euclidean norm'
            ) from None
    return _checks.order(norm_type, "norm_type")


def listed(parameters: Any, depth: int = 1) -> Any:
    """Return a list of what an iterator yields, anything else as it is. Warn, as PyTorch does, if it yields nothing.

    ``depth`` is the number of stack frames from this function to the user's code, whose line the warning shows.
    """
    if type(parameters) is list or not isinstance(parameters, Iterator):
        return parameters
    found = list(parameters)
    if not found:
        message = "`parameters` is an empty generator, no gradient clipping will occur."
        warnings.warn(message, UserWarning, stacklevel=2 + depth)
    return found
