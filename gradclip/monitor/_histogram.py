"""A histogram of norms with bins that grow by a constant factor: quantiles with a bounded relative error."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

ERROR = 0.01
"""The relative error of a quantile."""

SMALLEST, LARGEST = 1e-45, 1e39
"""The range of norms that have bins of their own: that of float32. Others count in the first and the last bin."""

_GROWTH = (1 + ERROR) / (1 - ERROR)
_FIRST = math.ceil(math.log(SMALLEST) / math.log(_GROWTH))
_BINS = math.ceil(math.log(LARGEST) / math.log(_GROWTH)) - _FIRST + 1


class LogHistogram:
    """Counts of norms, 78 KB whatever their number. Two histograms merge by addition, as those of two processes do.

    A norm x counts in bin ``ceil(log(x) / log(g))`` with g = (1 + e) / (1 - e) and e = 1 %; a quantile is the middle of
    its bin, so that it is right to 1 %. Zeros, infs and NaN are counted apart.

    References
    ----------
    .. [1] C. Masson, J. E. Rim, H. K. Lee, "DDSketch: A Fast and Fully-Mergeable Quantile Sketch with Relative-Error
       Guarantees", VLDB 2019, arXiv:1908.10693.

    Examples
    --------
    >>> from gradclip.monitor import LogHistogram
    >>> histogram = LogHistogram()
    >>> histogram.add([1.0, 2.0, 3.0, float("nan")])
    >>> round(histogram.quantile(0.5), 1), histogram.count, histogram.nans
    (2.0, 3, 1)
    """

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros(_BINS, np.int64)
        self.zeros = self.infs = self.nans = 0

    @property
    def count(self) -> int:
        """The number of norms, without NaN."""
        return int(self.counts.sum()) + self.zeros + self.infs

    def add(self, norms: ArrayLike) -> None:
        """Count norms, at least 0.

        Parameters
        ----------
        norms : array_like
            Of any shape.
        """
        values = np.asarray(norms, np.float64).ravel()
        self.nans += int(np.isnan(values).sum())
        self.infs += int(np.isposinf(values).sum())
        self.zeros += int((values == 0).sum())
        positive = values[(values > 0) & np.isfinite(values)]
        bins = np.ceil(np.log(positive) / math.log(_GROWTH)).astype(np.int64) - _FIRST
        np.add.at(self.counts, np.clip(bins, 0, _BINS - 1), 1)

    def quantile(self, q: float, *, finite: bool = False) -> float:
        """Return the norm that a share ``q`` of the norms does not exceed, to 1 %; NaN if there are none.

        Parameters
        ----------
        q : float
            Between 0 and 1.
        finite : bool
            Whether only finite norms count.

        Raises
        ------
        ValueError
            If ``q`` is not between 0 and 1.
        """
        if not 0 <= q <= 1:
            raise ValueError(f"q={q!r}, expected a number between 0 and 1; pass 0.95 for the 95th percentile")
        count = self.count - (self.infs if finite else 0)
        rank = q * (count - 1)
        if count == 0:
            return math.nan
        if rank < self.zeros:
            return 0.0
        seen = self.zeros + np.cumsum(self.counts)
        at = int(np.searchsorted(seen, rank, side="right"))
        return math.inf if at >= _BINS else 2 * _GROWTH ** (at + _FIRST) / (_GROWTH + 1)

    def __add__(self, other: "LogHistogram") -> "LogHistogram":
        """Return the histogram of both."""
        whole = LogHistogram()
        whole.counts = self.counts + other.counts
        whole.zeros, whole.infs, whole.nans = (
            getattr(self, name) + getattr(other, name) for name in ("zeros", "infs", "nans")
        )
        return whole

    def state_dict(self) -> dict[str, Any]:
        """Return the counts as plain numbers; only bins that are not empty."""
        filled = np.flatnonzero(self.counts)
        bins = dict(zip(filled.tolist(), self.counts[filled].tolist(), strict=True))
        return {"bins": bins, "zeros": self.zeros, "infs": self.infs, "nans": self.nans}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned; JSON may have made strings of the bins."""
        self.counts = np.zeros(_BINS, np.int64)
        for at, number in state_dict["bins"].items():
            self.counts[int(at)] = number
        self.zeros, self.infs, self.nans = (int(state_dict[name]) for name in ("zeros", "infs", "nans"))
