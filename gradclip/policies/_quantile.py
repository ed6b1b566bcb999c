"""``QuantileClip``: follows a quantile of the norms by small steps up and down."""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from gradclip._types import AnyArray
from gradclip.policies._arguments import keep, number
from gradclip.policies._numbers import enters, filled, namespace


class QuantileClipState(NamedTuple):
    """The state of `QuantileClip`.

    Parameters
    ----------
    log : array
        The logarithm of the threshold.
    rest : array
        What the logarithm is too small by, because it is rounded at each step.
    """

    log: AnyArray
    rest: AnyArray


@dataclass(frozen=True)
class QuantileClip:
    r"""Follows a quantile of the norms: the threshold falls after a norm below it, and rises after one above it.

    .. math:: C \leftarrow C \exp(-\eta\,(b - \gamma)), \qquad b = [n \le C]

    C settles where the share γ of the norms is below it. Only one number is kept.

    Parameters
    ----------
    quantile : float
        The share γ of steps that are not clipped, between 0 and 1.
    learning_rate : float
        The size η of a step of log C, greater than 0. Smaller is steadier and slower.
    initial : float
        The first threshold, greater than 0.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    The defaults are those of the paper, and the update is the geometric one that it recommends. In federated learning b
    is a mean over clients, with noise for privacy; here it is one norm, without noise. A norm that is NaN, inf or 0
    leaves C as it is.

    References
    ----------
    .. [1] G. Andrew, O. Thakkar, H. B. McMahan, S. Ramaswamy, "Differentially Private Learning with Adaptive Clipping",
       NeurIPS 2021, arXiv:1905.03871, section 2.

    Examples
    --------
    >>> from gradclip.policies import QuantileClip
    >>> policy = QuantileClip(initial=1.0)
    >>> state = policy.init(0.0)
    >>> for norm in [2.0, 2.0, 0.5]:
    ...     max_norm, state = policy.update(state, norm)
    ...     print(round(max_norm, 3))
    1.0
    1.105
    1.221
    """

    quantile: float = 0.5
    learning_rate: float = 0.2
    initial: float = 0.1

    skips: ClassVar[bool] = False
    per_leaf: ClassVar[bool] = False

    def __post_init__(self) -> None:
        keep(
            self,
            quantile=number(self.quantile, "quantile", "quantile=0.5", above=0, below=1),
            learning_rate=number(self.learning_rate, "learning_rate", "learning_rate=0.2", above=0),
            initial=number(self.initial, "initial", "a norm that is usual for your model", above=0),
        )

    def init(self, like: AnyArray) -> QuantileClipState:
        """Return the state before the first step."""
        log, rest = _parts(math.log(self.initial))
        return QuantileClipState(filled(like, log), filled(like, rest))

    def update(self, state: QuantileClipState, norm: AnyArray) -> tuple[AnyArray, QuantileClipState]:
        """Return the threshold for a norm, and the next state."""
        xp = namespace(norm)
        log, rest = state
        max_norm = xp.exp(log) * (1 + rest)
        below = norm <= max_norm
        down, down_rest = _parts(-self.learning_rate * (1 - self.quantile))
        up, up_rest = _parts(self.learning_rate * self.quantile)
        step = xp.where(below, filled(log, down), up)
        step_rest = xp.where(below, filled(log, down_rest), up_rest)
        change = step + (rest + step_rest)  # compensated, as in Kahan's sum
        moved = log + change
        enter = enters(norm)
        rest = xp.where(enter, change - (moved - log), rest)
        return max_norm, QuantileClipState(xp.where(enter, moved, log), rest)


def _parts(number: float) -> tuple[float, float]:
    """Return a number rounded to float32, and the rest, so that float32 has both."""
    first = float(np.float32(number))
    return first, number - first
