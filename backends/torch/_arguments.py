"""Arguments as the callers of ``torch.nn.utils`` pass them."""

import warnings
from collections.abc import Iterator
from typing import Any

from gradclip import _checks


def norm_order(norm_type: Any) -> float:
    """Return the order of a norm as a float; also of a string that spells one, such as "inf", as PyTorch takes it.

    Raises
    ------
    TypeError
        If it is not a number.
    ValueError
        If it is not greater than 0, or a string that spells no number.
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
    """Return a list for an iterator, which can be read only once; warn as PyTorch does of one that yields nothing.

    ``depth`` is how many of our functions are between this one and the user's, whose line the warning shows.
    """
    if type(parameters) is list or not isinstance(parameters, Iterator):
        return parameters
    found = list(parameters)
    if not found:
        message = "`parameters` is an empty generator, no gradient clipping will occur."
        warnings.warn(message, UserWarning, stacklevel=2 + depth)
    return found
