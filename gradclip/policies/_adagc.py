"""``AdaGC``: each tensor is clipped to a little more than the running mean of its own norms."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from gradclip._types import AnyArray
from gradclip.policies._arguments import choice, count, keep, number
from gradclip.policies._numbers import enters, filled, namespace


class AdaGCState(NamedTuple):
    """The state of `AdaGC`.

    Parameters
    ----------
    count : array
        How many norms each leaf has had, at most ``warmup_steps``.
    gamma : array
        For each leaf, the smallest norm of the warm-up, and later the running mean; inf before its first norm.
    """

    count: AnyArray
    gamma: AnyArray


@dataclass(frozen=True)
class AdaGC:
    r"""Clips each tensor to a little more than the running mean of its own clipped norms.

    In the warm-up, all tensors are clipped by their global norm N, and the smallest norm of each is remembered:

    .. math:: T_i = n_i \min\Big(1, \frac{\lambda_{abs}}{N}\Big), \qquad
              \gamma_i \leftarrow \min(\gamma_i, \min(n_i, T_i)).

    After it, each is clipped by itself:

    .. math:: T_i = \lambda_{rel} \gamma_i, \qquad \gamma_i \leftarrow \beta\gamma_i + (1-\beta)\min(n_i, T_i).

    Parameters
    ----------
    lambda_rel : float
        The threshold as a multiple of γ, greater than 0.
    beta : float
        The decay of γ, between 0 and 1.
    warmup_steps : int
        The number of norms of the warm-up, at least 1.
    lambda_abs : float
        The threshold for the global norm in the warm-up, greater than 0; inf: no clipping.
    running_min : {"after", "before"}
        Whether the smallest norm of the warm-up is of norms after clipping, as in the paper, or before, as in the
        authors' code for Paddle.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    The defaults are those of the paper. Implementations differ: Paddle's have λ_rel 1.03 or 1.04 and β 0.98 or 0.99.
    N is the Euclidean norm of the leaves' norms; with ``ord=2`` it is the global norm. We deviate from the sources as
    follows: a norm that is NaN, inf or 0 does not enter γ or N, because a tensor whose γ is NaN or 0 would never learn
    again; the warm-up is counted for each leaf, so that an expert that gets its first token late has one as well; there
    is no epsilon in the denominator.

    References
    ----------
    .. [1] G. Wang, S. Li, et al., "AdaGC: Improving Training Stability for Large Language Model Pretraining", 2025,
       arXiv:2502.11034, Algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from gradclip.policies import AdaGC
    >>> policy = AdaGC(warmup_steps=1)
    >>> state = policy.init(np.zeros(2))
    >>> for norms in [[0.3, 0.4], [0.3, 9.0]]:
    ...     max_norm, state = policy.update(state, np.array(norms))
    ...     print(max_norm)
    [0.3 0.4]
    [0.315 0.42 ]
    """

    lambda_rel: float = 1.05
    beta: float = 0.98
    warmup_steps: int = 100
    lambda_abs: float = 1.0
    running_min: Literal["after", "before"] = "after"

    skips: ClassVar[bool] = False
    per_leaf: ClassVar[bool] = True

    def __post_init__(self) -> None:
        absolute = self.lambda_abs
        keep(
            self,
            lambda_rel=number(self.lambda_rel, "lambda_rel", "lambda_rel=1.05", above=0),
            beta=number(self.beta, "beta", "beta=0.98", above=0, below=1),
            warmup_steps=count(self.warmup_steps, "warmup_steps", "warmup_steps=100"),
            lambda_abs=absolute if absolute == math.inf else number(absolute, "lambda_abs", "lambda_abs=1.0", above=0),
        )
        choice(self.running_min, "running_min", ("after", "before"))

    def init(self, like: AnyArray) -> AdaGCState:
        """Return the state before the first step; ``like`` has one norm for each leaf."""
        return AdaGCState(filled(like, 0.0), filled(like, math.inf))

    def update(self, state: AdaGCState, norm: AnyArray) -> tuple[AnyArray, AdaGCState]:
        """Return the threshold for each leaf's norm, and the next state."""
        xp = namespace(norm)
        seen, gamma = state
        enter, warm = enters(norm), seen < self.warmup_steps
        share = self._share(xp, xp.where(enter, norm, 0.0))
        largest = xp.where(enter, norm * share, math.inf if self.lambda_abs == math.inf else self.lambda_abs)
        max_norm = xp.where(warm, largest, self.lambda_rel * gamma)
        clipped = xp.where(norm <= max_norm, norm, max_norm)
        least = clipped if self.running_min == "after" else norm
        least = xp.where(least < gamma, least, gamma)
        mean = gamma + (1 - self.beta) * (clipped - xp.where(warm, clipped, gamma))
        gamma = xp.where(enter, xp.where(warm, least, mean), gamma)
        return max_norm, AdaGCState(xp.where(enter & warm, seen + 1, seen), gamma)

    def _share(self, xp: AnyArray, norms: AnyArray) -> AnyArray:
        """Return what norms are multiplied by in the warm-up: min(1, lambda_abs / N)."""
        most = xp.max(norms)
        most = xp.where(most > 0, most, 1.0)
        quotients = norms / most  # N itself may overflow
        total = xp.sum(quotients * quotients)
        share = self.lambda_abs / most / xp.sqrt(xp.where(total > 0, total, 1.0))
        return xp.where(share < 1, share, 1.0)
