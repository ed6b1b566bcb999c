"""``EmaClip``: each tensor is clipped to a multiple of the running mean of its own norms."""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from gradclip._types import AnyArray
from gradclip.policies._arguments import keep, number
from gradclip.policies._numbers import enters, filled, namespace


class EmaClipState(NamedTuple):
    """The state of `EmaClip`.

    Parameters
    ----------
    mean : array
        The running mean of the clipped norms of each leaf; 0 before its first norm.
    """

    mean: AnyArray


@dataclass(frozen=True)
class EmaClip:
    r"""Clips each tensor to a multiple of the running mean of its own clipped norms.

    .. math:: T_i = \text{ratio} \cdot E_i, \qquad E_i \leftarrow \beta E_i + (1-\beta)\min(n_i, T_i)

    Parameters
    ----------
    ratio : float
        The multiple, greater than 0. OLMo has no default. With a ratio below 1, thresholds shrink for ever.
    beta : float
        The decay of the mean, between 0 and 1. OLMo takes the larger one of Adam's betas, 0.95 by default.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    We deviate from OLMo's code as follows: the mean starts with the first norm, there with the second; a norm that is
    NaN, inf or 0 does not enter it, because a tensor whose mean is NaN or 0 would never learn again; there is no 1e-6
    in the denominator.

    References
    ----------
    .. [1] OLMo, https://github.com/allenai/OLMo, ``olmo/optim.py``, ``_do_adaptive_clipping``; the setting
       ``max_grad_norm_ratio``.

    Examples
    --------
    >>> import numpy as np
    >>> from gradclip.policies import EmaClip
    >>> policy = EmaClip(ratio=1.1)
    >>> state = policy.init(np.zeros(2))
    >>> for norms in [[1.0, 5.0], [1.0, 9.0]]:
    ...     max_norm, state = policy.update(state, np.array(norms))
    ...     print(max_norm)
    [1.1 5.5]
    [1.1 5.5]
    """

    ratio: float
    beta: float = 0.95

    skips: ClassVar[bool] = False
    per_leaf: ClassVar[bool] = True

    def __post_init__(self) -> None:
        keep(
            self,
            ratio=number(self.ratio, "ratio", "ratio=1.1", above=0),
            beta=number(self.beta, "beta", "beta=0.95", above=0, below=1),
        )

    def init(self, like: AnyArray) -> EmaClipState:
        """Return the state before the first step; ``like`` has one norm for each leaf."""
        return EmaClipState(filled(like, 0.0))

    def update(self, state: EmaClipState, norm: AnyArray) -> tuple[AnyArray, EmaClipState]:
        """Return the threshold for each leaf's norm, and the next state."""
        xp = namespace(norm)
        enter = enters(norm)
        mean = xp.where((state.mean == 0) & enter, norm, state.mean)
        max_norm = xp.where(mean > 0, self.ratio * mean, math.inf)
        clipped = xp.where(norm <= max_norm, norm, max_norm)
        change = xp.where(enter, clipped, mean) - mean
        return max_norm, EmaClipState(mean + (1 - self.beta) * change)
