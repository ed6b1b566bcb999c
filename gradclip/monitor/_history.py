"""`History`: the gradient norms of a run, step by step."""

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradclip._words import kind, short

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Steps = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class History:
    """Gradient norms of a run, and what was recorded with them: arrays with one element for each step.

    Parameters
    ----------
    step : array of int64, shape (steps,)
        The numbers of the steps, ascending.
    norm : array of float64, shape (steps,)
        The norms before clipping. NaN and inf are kept.
    max_norm, coefficient, loss : array of float64, shape (steps,), or None
        The threshold, what the gradients were multiplied by, and the loss; NaN where one is missing. None if it was not
        recorded.
    clipped, skipped : array of bool, shape (steps,), or None
        Whether the gradients were clipped, and whether the step was skipped. None if it was not recorded.
    parameters : dict of str to array of float64, shape (steps,)
        The norm of each parameter's gradient before clipping; NaN where it is missing.
    update_norm : array of float64, shape (steps,), or None
        The norm of the optimizer's update; NaN where it is missing. None if it was not recorded.

    Raises
    ------
    TypeError
        If something is no array, or ``parameters`` is no dict.
    ValueError
        If an array is not of the shape of ``step``.

    Examples
    --------
    >>> import numpy as np
    >>> from gradclip.monitor import History
    >>> history = History(step=np.arange(3), norm=np.array([1.0, np.nan, 2.0]))
    >>> len(history)
    3
    """

    step: Steps
    norm: Floats
    max_norm: Floats | None = None
    coefficient: Floats | None = None
    loss: Floats | None = None
    clipped: Flags | None = None
    skipped: Flags | None = None
    parameters: dict[str, Floats] = field(default_factory=dict)
    update_norm: Floats | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.parameters, dict):
            raise TypeError(f"parameters is {kind(self.parameters)}, expected a dict of arrays; pass one by names")
        named: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "parameters"}
        given = {name: values for name, values in named.items() if values is not None}
        for name, values in {**given, **{f"parameters[{key!r}]": v for key, v in self.parameters.items()}}.items():
            if not isinstance(values, np.ndarray):
                raise TypeError(f"{name} is {kind(values)}, expected a NumPy array; pass np.asarray(...)")
            if values.ndim != 1 or values.shape != self.step.shape:
                raise ValueError(
                    f"{name} has the shape {short(values.shape)}, expected {short(self.step.shape)} with one element "
                    "for each step; pass NaN where a value is missing"
                )

    def __len__(self) -> int:
        """Return the number of steps."""
        return self.step.size
