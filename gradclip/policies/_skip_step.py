"""``SkipStep``: skips steps whose norm is above a threshold, or is an outlier among the norms before."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from gradclip._types import AnyArray, AnyScalar, Namespace
from gradclip.policies._arguments import choice, count, keep, number
from gradclip.policies._fixed import FixedState
from gradclip.policies._numbers import appended, filled, history, namespace


class SkipStepState(NamedTuple):
    """The state of `SkipStep` with ``sigma``.

    Parameters
    ----------
    norms : array
        The last ``window`` finite norms, the newest last; inf stands for one that is not there yet.
    """

    norms: AnyArray


@dataclass(frozen=True)
class SkipStep:
    r"""Skips a step whose norm is too large, or is NaN or inf: such a step changes nothing at all.

    A step is skipped if its norm n is above ``threshold``, or, with the mean m and the standard deviation s of the last
    ``window`` norms, if

    .. math:: n > m + \text{sigma} \cdot s.

    Parameters
    ----------
    threshold : float or None
        Steps with a norm above it are skipped; None: no such threshold.
    sigma : float or None
        Steps with a norm more than ``sigma`` standard deviations above the mean are skipped; None: 6, or no such rule
        if ``threshold`` is given.
    window : int
        The number of norms that mean and deviation are of, at least 2.
    rule : {"olmo-core", "llm.c"}
        "olmo-core": of the norms before this step, from ``window // 2 - 1`` of them on, with the deviation of a sample.
        "llm.c": of the norms with that of this step, once there are ``window``, with the deviation of a population.
        Then ``sigma`` must be less than sqrt(window - 1), because no norm can be as many deviations above.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    Norms of skipped steps enter the window, as in both sources, so that a lasting rise of the norm is followed. Norms
    that are NaN, inf or 0 do not; steps with NaN or inf are skipped always. The sources have the same rule for the
    loss, which a policy does not see.

    References
    ----------
    .. [1] Megatron-LM, ``OptimizerConfig.grad_norm_skip_threshold``: ``threshold``.
    .. [2] OLMo-core, ``olmo_core/optim/skip_step_optimizer.py``: ``sigma`` and ``window`` with their defaults.
    .. [3] llm.c, ``llmc/outlier_detector.h`` and the option ``-sg``.

    Examples
    --------
    >>> from gradclip.policies import SkipStep
    >>> policy = SkipStep(sigma=3, window=8)
    >>> state = policy.init(0.0)
    >>> for norm in [1.0, 1.2, 0.8, 1.0, 9.0]:
    ...     max_norm, state = policy.update(state, norm)
    ...     print(norm > max_norm)
    False
    False
    False
    False
    True
    """

    threshold: float | None = None
    sigma: float | None = None
    window: int = 128
    rule: Literal["olmo-core", "llm.c"] = "olmo-core"

    skips: ClassVar[bool] = True
    per_leaf: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.threshold is not None:
            remedy = "None for a rule by sigma"
            keep(self, threshold=number(self.threshold, "threshold", remedy, above=0))
        sigma = 6.0 if self.sigma is None and self.threshold is None else self.sigma
        window = count(self.window, "window", "window=128", least=2)
        choice(self.rule, "rule", ("olmo-core", "llm.c"))
        below = math.sqrt(window - 1) if self.rule == "llm.c" else math.inf
        if sigma is not None:
            sigma = number(sigma, "sigma", "sigma=6 with a window of at least 38", above=0, below=below)
        keep(self, sigma=sigma, window=window)

    def init(self, like: AnyArray) -> SkipStepState | FixedState:
        """Return the state before the first step."""
        return FixedState() if self.sigma is None else SkipStepState(history(like, self.window))

    def update(self, state: SkipStepState | FixedState, norm: AnyArray) -> tuple[AnyArray, SkipStepState | FixedState]:
        """Return the threshold for a norm, above which the step is skipped, and the next state."""
        limit = math.inf if self.threshold is None else self.threshold
        if isinstance(state, FixedState):
            return filled(norm, limit), state
        norms = state.norms
        xp = namespace(norms)
        bound = self._bound(xp, norms)
        return xp.where(bound < limit, bound, limit), SkipStepState(appended(norms, norm))

    def _bound(self, xp: Namespace, norms: AnyArray) -> AnyScalar:
        """Return the largest norm that is no outlier; inf as long as there are too few norms."""
        assert self.sigma is not None
        if self.rule == "olmo-core":
            seen, largest, mean, squares = _moments(xp, norms)
            enough, spread = (
                seen >= max(2, self.window // 2 - 1),
                self.sigma * xp.sqrt(squares / xp.where(seen > 1, seen - 1, 1.0)),
            )
        else:  # x with n - 1 others of mean m and deviation s: (x - m)² (n - 1 - sigma²) > sigma² n s²
            n = self.window
            _, largest, mean, squares = _moments(xp, norms[1:])
            enough, spread = (
                norms[0] < math.inf,
                self.sigma * xp.sqrt(squares * (n / (n - 1) / (n - 1 - self.sigma**2))),
            )
        return xp.where(enough, largest * (mean + spread), math.inf)


def _moments(xp: Namespace, norms: AnyArray) -> tuple[AnyArray, AnyArray, AnyArray, AnyArray]:
    """Return the number of norms, the largest, and, of norms divided by it, the mean and the sum of squared deviations.

    The quotients cannot overflow, and equal norms have exactly the deviation 0.
    """
    there = xp.isfinite(norms)
    zero = xp.zeros_like(norms)
    seen = xp.sum(xp.astype(there, norms.dtype))
    largest = xp.max(xp.where(there, norms, zero))
    largest = xp.where(largest > 0, largest, 1.0)
    quotients = xp.where(there, norms / largest, zero)
    mean = xp.sum(quotients) / xp.where(seen > 0, seen, 1.0)
    deviations = xp.where(there, quotients - mean, zero)
    return seen, largest, mean, xp.sum(deviations * deviations)
