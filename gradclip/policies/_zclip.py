"""``ZClip``: clips a norm that is many standard deviations above the running mean of norms."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from gradclip._types import AnyArray, Namespace
from gradclip.policies._arguments import choice, count, keep, number
from gradclip.policies._numbers import enters, filled, namespace


class ZClipState(NamedTuple):
    """The state of `ZClip`.

    Parameters
    ----------
    count : array
        How many norms were seen, at most ``warmup_steps``.
    mean, std : array
        The running mean of norms and their standard deviation.
    """

    count: AnyArray
    mean: AnyArray
    std: AnyArray


@dataclass(frozen=True)
class ZClip:
    r"""Clips a norm whose z-score is above a threshold: spikes are clipped, ordinary norms are not.

    With the mean μ and the standard deviation σ of the norms before, and z = (n - μ) / (σ + eps), a norm n is a spike
    if z > ``z_thresh``. Its threshold is

    .. math:: T = \mu + \frac{\text{z\_thresh}^2}{z}\,\sigma,

    so the larger the spike, the nearer to the mean it is clipped. Then, with n* = T for a spike and n* = n otherwise,

    .. math:: \mu \leftarrow \alpha\mu + (1-\alpha)n^*, \qquad
              \sigma^2 \leftarrow \alpha\sigma^2 + (1-\alpha)(n^*-\mu)^2.

    In the first ``warmup_steps`` steps, only ``max_norm`` clips; μ and σ are the mean and the standard deviation of the
    norms seen so far.

    Parameters
    ----------
    alpha : float
        The decay of the running mean and variance, between 0 and 1.
    z_thresh : float
        The z-score above which a norm is a spike, greater than 0.
    max_norm : float or None
        A threshold that holds at every step as well, also in the warm-up; None: none.
    warmup_steps : int
        The number of finite norms of the warm-up, at least 1.
    eps : float
        Added to σ in the z-score, greater than 0.
    option : {"adaptive_scaling", "mean", "percentile"}
        The threshold of a spike. "adaptive_scaling": T above; "mean": μ; "percentile": μ + z_thresh · σ, and norms
        above this are spikes.
    clip_factor : float
        With "adaptive_scaling", T is multiplied by it, greater than 0.
    skip_update_on_spike : bool
        Whether spikes leave μ and σ as they are.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    The defaults are those of the authors' code. We deviate from it as follows: a norm that is NaN, inf or 0 does not
    enter the state, where NaN would stay for ever; the threshold of NaN and inf is that of an infinitely large spike; σ
    is kept in place of σ², so that float32 does not overflow; there is no 1e-6 in the coefficient.

    References
    ----------
    .. [1] A. Kumar, L. Owen, N. R. Chowdhury, F. Güra, "ZClip: Adaptive Spike Mitigation for LLM Pre-Training", 2025,
       arXiv:2504.02507, and https://github.com/bluorion-com/ZClip.

    Examples
    --------
    >>> from gradclip.policies import ZClip
    >>> policy = ZClip(warmup_steps=3, max_norm=None)
    >>> state = policy.init(0.0)
    >>> for norm in [1.0, 1.2, 0.8, 9.0]:
    ...     max_norm, state = policy.update(state, norm)
    ...     print(round(max_norm, 3))
    inf
    inf
    inf
    1.021
    """

    alpha: float = 0.97
    z_thresh: float = 2.5
    max_norm: float | None = 1.0
    warmup_steps: int = 25
    eps: float = 1e-6
    option: Literal["adaptive_scaling", "mean", "percentile"] = "adaptive_scaling"
    clip_factor: float = 1.0
    skip_update_on_spike: bool = False

    skips: ClassVar[bool] = False
    per_leaf: ClassVar[bool] = False

    def __post_init__(self) -> None:
        limit = self.max_norm
        keep(
            self,
            alpha=number(self.alpha, "alpha", "alpha=0.97", above=0, below=1),
            z_thresh=number(self.z_thresh, "z_thresh", "z_thresh=2.5", above=0),
            max_norm=None if limit is None else number(limit, "max_norm", "None for no limit", least=0),
            warmup_steps=count(self.warmup_steps, "warmup_steps", "warmup_steps=25"),
            eps=number(self.eps, "eps", "eps=1e-6", above=0),
            clip_factor=number(self.clip_factor, "clip_factor", "clip_factor=1.0", above=0),
        )
        choice(self.option, "option", ("adaptive_scaling", "mean", "percentile"))

    def init(self, like: AnyArray) -> ZClipState:
        """Return the state before the first step."""
        zero = filled(like, 0.0)
        return ZClipState(zero, zero, zero)

    def update(self, state: ZClipState, norm: AnyArray) -> tuple[AnyArray, ZClipState]:
        """Return the threshold for a norm, and the next state."""
        xp = namespace(norm)
        seen, mean, std = state
        enter, ready = enters(norm), seen >= self.warmup_steps
        norm = xp.where(norm < math.inf, norm, math.inf)  # NaN too
        spike = ready & self._is_spike(norm, mean, std)
        threshold = self._threshold(xp, spike, norm, mean, std)
        limit = math.inf if self.max_norm is None else self.max_norm
        max_norm = xp.where(spike & (threshold < limit), threshold, limit)
        enter = enter & (enter != spike) if self.skip_update_on_spike else enter
        value = xp.where(enter, xp.where(spike, threshold, norm), mean)
        return max_norm, self._next(xp, state, value, ready, enter)

    def _is_spike(self, norm: AnyArray, mean: AnyArray, std: AnyArray) -> AnyArray:
        if self.option == "percentile":
            return norm > mean + self.z_thresh * std
        return (norm - mean) / (std + self.eps) > self.z_thresh

    def _threshold(self, xp: Namespace, spike: AnyArray, norm: AnyArray, mean: AnyArray, std: AnyArray) -> AnyArray:
        """Return the threshold of a spike; for other norms, any number."""
        if self.option == "mean":
            return mean
        if self.option == "percentile":
            return mean + self.z_thresh * std
        z = xp.where(spike, (norm - mean) / (std + self.eps), self.z_thresh)
        return self.clip_factor * (mean + self.z_thresh / z * std * self.z_thresh)

    def _next(self, xp: Namespace, state: ZClipState, value: AnyArray, ready: AnyArray, enter: AnyArray) -> ZClipState:
        """Return the state after a value: with exact moments in the warm-up, later with running ones.

        A value x has the weight w. With d = x - μ, the mean is μ + w d, and the variance is σ² + w (b² - σ²). In the
        warm-up b² = (1 - w) d² (Welford); later b² = (1 - w)² d², because the deviation is from the new mean. Written
        as changes, these do not add up the rounding errors of 1 - w in float32.
        """
        seen, mean, std = state
        weight = xp.where(enter, xp.where(ready, 1 - self.alpha, 1 / (seen + 1)), 0.0)
        rest, change = 1 - weight, value - mean
        deviation = change * xp.where(ready, rest, xp.sqrt(rest))
        size = xp.where(deviation < 0, -deviation, deviation)
        size = xp.where(std > size, std, size)
        size = xp.where(size > 0, size, 1.0)  # squares of quotients by it do not overflow
        old, new = std / size, deviation / size
        old, new = old * old, new * new
        counted = xp.where(enter, xp.where(ready, seen, seen + 1), seen)
        return ZClipState(counted, mean + weight * change, size * xp.sqrt(old + weight * (new - old)))
