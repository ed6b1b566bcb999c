"""Units of many leaves in the host's memory, each a row of elements: measured in one call, and multiplied in one."""

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any, overload

import numpy as np

from gradclip._coefficient import Coefficient
from gradclip._memory import NDArray


class RowCoefficients(Sequence[Coefficient]):
    """The coefficients of the units of leaves: a sequence with one item for each leaf.

    The coefficients of units that are rows are kept in NumPy arrays, those of all leaves together. The item of a leaf
    is made when it is read.

    Parameters
    ----------
    rows : Coefficient
        Of all rows, leaf by leaf: of 1-D NumPy arrays.
    counts : sequence of int
        How many rows each leaf has, -1 for a leaf whose units are no rows.
    shapes : sequence of tuple of int
        The shape of each leaf's coefficient.
    others : mapping of int to Coefficient
        The coefficients of leaves whose units are no rows, by position.
    own : callable
        Makes an array of the framework from a NumPy array.
    """

    def __init__(
        self,
        rows: Coefficient,
        counts: Sequence[int],
        shapes: Sequence[tuple[int, ...]],
        others: Mapping[int, Coefficient],
        own: Callable[[NDArray], Any],
    ) -> None:
        self.rows, self.counts, self._shapes, self.others, self._own = rows, counts, shapes, others, own
        self._ends = list(accumulate(max(0, n) for n in counts))

    def __len__(self) -> int:
        return len(self.counts)

    @overload
    def __getitem__(self, i: int) -> Coefficient: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[Coefficient]: ...
    def __getitem__(self, i: int | slice) -> Coefficient | Sequence[Coefficient]:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        if self.counts[i] < 0:
            return self.others[i]
        rows = self.rows[self._ends[i] - self.counts[i] : self._ends[i]]
        parts = (self._own(part.reshape(self._shapes[i])) for part in (rows.divisor, rows.factor, rows.changed))
        return Coefficient(*parts)

    def changing(self) -> list[int]:
        """Return the positions of leaves of which a row changes."""
        before = np.concatenate([[0], np.cumsum(self.rows.changed)])
        return [i for i, n in enumerate(self.counts) if n > 0 and before[self._ends[i]] > before[self._ends[i] - n]]

    def of(self, which: Sequence[int]) -> Coefficient:
        """Return the coefficients of all rows of some leaves."""
        keys = [np.arange(self._ends[i] - self.counts[i], self._ends[i]) for i in which]
        return self.rows[np.concatenate(keys)]
