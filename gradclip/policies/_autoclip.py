"""``AutoClip``: a percentile of the norms seen."""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from gradclip import _namespace as ns
from gradclip._types import AnyArray
from gradclip.policies._arguments import count, keep, number
from gradclip.policies._numbers import appended, history, namespace


class AutoClipState(NamedTuple):
    """The state of `AutoClip`.

    Parameters
    ----------
    norms : array
        The last ``window`` norms, the newest last; inf stands for one that is not there yet.
    """

    norms: AnyArray


@dataclass(frozen=True)
class AutoClip:
    r"""Clips to a percentile of the norms seen, that of this step included.

    .. math:: T_t = \text{percentile}_p\,\{n_1, \dots, n_t\}

    With ``percentile=10``, about nine of ten steps are clipped.

    Parameters
    ----------
    percentile : float
        The percentile p, from 0 to 100, interpolated linearly.
    window : int
        The number of norms that are kept, at least 1. The norms are sorted at each step; ten thousand take about 0.1 ms
        on a CPU.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    The default percentile is the one that the paper recommends. We deviate from the paper as follows: it keeps all
    norms, and here the last ``window`` are kept, by default as many as in the authors' code for TensorFlow; a norm that
    is NaN, inf or 0 is not kept, because NaN would make every later percentile NaN.

    References
    ----------
    .. [1] P. Seetharaman, G. Wichern, B. Pardo, J. Le Roux, "AutoClip: Adaptive Gradient Clipping for Source Separation
       Networks", MLSP 2020, arXiv:2007.14469, and https://github.com/pseeth/autoclip.

    Examples
    --------
    >>> from gradclip.policies import AutoClip
    >>> policy = AutoClip(percentile=50)
    >>> state = policy.init(0.0)
    >>> for norm in [1.0, 3.0, 2.0]:
    ...     max_norm, state = policy.update(state, norm)
    ...     print(max_norm)
    1.0
    2.0
    2.0
    """

    percentile: float = 10.0
    window: int = 10_000

    skips: ClassVar[bool] = False
    per_leaf: ClassVar[bool] = False

    def __post_init__(self) -> None:
        p = number(self.percentile, "percentile", "percentile=10", least=0, most=100)
        keep(self, percentile=p, window=count(self.window, "window", "window=10_000"))

    def init(self, like: AnyArray) -> AutoClipState:
        """Return the state before the first step."""
        return AutoClipState(history(like, self.window))

    def update(self, state: AutoClipState, norm: AnyArray) -> tuple[AnyArray, AutoClipState]:
        """Return the threshold for a norm, and the next state."""
        norms = appended(state.norms, norm)
        xp = namespace(norms)
        there = xp.isfinite(norms)
        seen = xp.sum(xp.astype(there, norms.dtype))
        share, rest = self._share()
        ranks = xp.arange(self.window, dtype=norms.dtype, device=ns.device(norms))
        weights = 1 - xp.abs(ranks - (seen - 1) * share - (seen - 1) * rest)
        ordered = xp.sort(xp.where(there, norms, xp.max(xp.where(there, norms, 0.0))))
        threshold = xp.sum(xp.where(weights > 0, weights * ordered, 0.0))
        return xp.where(seen > 0, threshold, math.inf), AutoClipState(norms)

    def _share(self) -> tuple[float, float]:
        """Return two numbers that add up to percentile / 100; the first times a rank is exact in float32."""
        share = self.percentile / 100
        first = math.ldexp(round(math.ldexp(share, bits := max(0, 24 - self.window.bit_length()))), -bits)
        return first, share - first
