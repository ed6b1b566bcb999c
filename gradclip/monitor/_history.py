"""History: gradient norms over the steps of a run."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["History"]


@dataclass(frozen=True)
class History:
    """Gradient norms of a run and what was recorded with them; arrays of one element a step.

    Parameters
    ----------
    step
        The steps, ascending.
    norm
        The norms before clipping; NaN and inf are kept.
    max_norm, coefficient, loss
        What else was recorded, NaN where it is missing; None if it was not recorded.
    clipped, skipped
        Whether the step was clipped, or skipped; None if it was not recorded.
    parameters
        The norm of each parameter's gradient, NaN where it is missing.
    """

    step: NDArray[np.int64]
    norm: NDArray[np.float64]
    max_norm: NDArray[np.float64] | None = None
    coefficient: NDArray[np.float64] | None = None
    loss: NDArray[np.float64] | None = None
    clipped: NDArray[np.bool_] | None = None
    skipped: NDArray[np.bool_] | None = None
    parameters: dict[str, NDArray[np.float64]] = field(default_factory=dict)
