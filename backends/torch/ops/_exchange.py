"""Each rank sends one row of numbers to all ranks. All check the same rows, so all raise an error, or none does."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gradclip._dtypes import is_double
from gradclip._partial import NormPartial, merge_elements
from gradclip._types import AnyScalar
from gradclip.backends.torch.ops._ranks import Ranks, named
from gradclip.backends.torch.ops._terms import Terms, TermsDifferError, difference_of, number_of

_KNOWN = "is_known_to_all_ranks"
"""The attribute of an error that all ranks raise, or were told of: none waits for this one any more."""

_SAME = "expected the same on all ranks; nothing was written on any rank"

_NO_LIMIT = -1.0
"""What a row holds for ``max_norm=None``; a threshold is at least 0."""


class Pending(NamedTuple):
    """The sums that a rank has yet to make: with how many ranks, the first of them, and the numel of all sums."""

    ranks: int = 0
    first: int = -1
    numel: int = 0


class Row(NamedTuple):
    """What a rank tells the others. All are numbers; ``failed`` is 1 if it raised an error and has no norm.

    ``terms`` is the number of the terms of the call (see `gradclip.backends.torch.ops._terms`).
    """

    scale: Any = 1.0
    total: Any = 0.0
    double: float = 0.0
    ord: float = 0.0
    max_norm: Any = _NO_LIMIT
    pending_ranks: float = 0.0
    pending_first: float = -1.0
    pending_numel: float = 0.0
    failed: float = 0.0
    terms: float = 0.0

    def tensor(self) -> Tensor:
        """Return the row as a float64 tensor (float32 on a device without float64) beside the partial norm."""
        like = self.total if isinstance(self.total, Tensor) else torch.zeros((), dtype=torch.float64)
        return torch.stack([torch.as_tensor(x, dtype=like.dtype, device=like.device) for x in self])


ROW_NUMEL = len(Row._fields)
"""How many numbers a rank sends."""


def row_of(local: NormPartial, max_norm: AnyScalar | None, pending: Pending, terms: Terms | None = None) -> Row:
    """Return the row for the partial norm of what this rank owns."""
    limit = _NO_LIMIT if max_norm is None else max_norm
    row = Row(local.scale, local.total, float(is_double(local.dtype)), local.ord, limit, *map(float, pending))
    return row._replace(terms=number_of(terms or {}))


class Exchange:
    """What a call exchanges with other ranks.

    Parameters
    ----------
    ranks : callable
        Returns the ranks, or None if there are no others. It may raise an error.
    waiting : callable
        Returns the ranks that may be waiting for this one if it raises an error, or None.
    """

    def __init__(self, ranks: Callable[[], Ranks | None], waiting: Callable[[], Ranks | None]) -> None:
        self._ranks, self._waiting = ranks, waiting
        self._begun = False

    def fail(self, error: Exception) -> None:
        """Tell the other ranks of an error that this rank found, once, if they are still waiting for its numbers."""
        if self._begun or error.__dict__.get(_KNOWN):
            return
        ranks = self._waiting()
        if ranks is not None:
            self._begun = True
            ranks.gathered(Row(failed=1.0).tensor())
            error.__dict__[_KNOWN] = True

    def ranks(self) -> Ranks:
        """Return the ranks that take part, in the order of what they exchange."""
        ranks = self._ranks()
        assert ranks is not None
        return ranks

    def objects(self, value: object) -> list[Any]:
        """Return what every rank passed, in the order of `ranks`: for errors and reports, because it is slow."""
        ranks, self._begun = self.ranks(), True
        return ranks.gathered_objects(value)

    def merged(self, row: Row, terms: Terms | None = None) -> tuple[NormPartial, bool]:
        """Return the partial norm of all ranks, and whether any rank has sums that are yet to be made.

        ``terms`` are those of the row, for an error message.

        Raises
        ------
        ValueError
            On every rank, if they were called with different arguments.
        RuntimeError
            On every rank, if another one raised an error.
        """
        ranks, self._begun = self.ranks(), True
        rows = ranks.gathered(row.tensor()).to(row.total.device)
        try:
            return merged_rows(rows, ranks.members, row.ord, double=bool(row.double))
        except TermsDifferError:  # on all ranks, so that all tell theirs
            told = dict(zip(ranks.members, self.objects(terms or {}), strict=True))
            error: Exception = ValueError(f"{difference_of(told)}, {_SAME}")
        except (ValueError, RuntimeError) as e:
            error = e
        error.__dict__[_KNOWN] = True
        raise error


def merged_rows(rows: Tensor, members: Sequence[int], ord: float, *, double: bool) -> tuple[NormPartial, bool]:
    """Return the partial norm of all ranks, and whether any rank has sums that are yet to be made; raise as `Exchange`.

    If the terms of ranks differ, it raises TermsDifferError, a ValueError.

    Parameters
    ----------
    rows : Tensor
        The rows of all ranks, of shape (number of ranks, numel of a row).
    members : sequence of int
        The ranks, in the order of the rows.
    ord : float
        The order of the norm on this rank.
    double : bool
        Whether the norm is float64; on a host, the rows tell.
    """
    scale, total = rows[:, 0], rows[:, 1]
    pending = False
    if rows.device.type == "cpu":
        each = [Row(*numbers) for numbers in rows.tolist()]
        _check(each, members)
        pending = any(other.pending_ranks for other in each)
        double = any(other.double for other in each)
    else:  # nothing is read back: ranks that differ get NaN instead of an error
        told = rows[:, [Row._fields.index(name) for name in ("ord", "max_norm", "failed", "terms")]]
        alike = (told == told[0]) | (told.isnan() & told[0].isnan())
        total = torch.where(alike.all(), total, math.nan)
    dtype = torch.float64 if double else torch.float32
    return merge_elements(NormPartial(scale, total, ord, dtype), axis=0), pending


def _check(rows: Sequence[Row], members: Sequence[int]) -> None:
    """Raise if a rank failed, or if ranks differ. Every rank has the same rows, so that all raise the same."""
    failed = [rank for rank, row in zip(members, rows, strict=True) if row.failed]
    if failed:
        raise RuntimeError(
            f"{named(failed)} raised an error before the norm was known, expected gradients of all ranks; nothing was "
            "written on any rank. The error of that rank says what to do"
        )
    for name, told in (("norm_type", "ord"), ("max_norm", "max_norm")):
        of: dict[float, list[int]] = {}
        for rank, row in zip(members, rows, strict=True):
            of.setdefault(getattr(row, told), []).append(rank)
        if len(of) > 1:
            found = "; ".join(f"{_shown(value)} on {named(ranks)}" for value, ranks in of.items())
            raise ValueError(f"{name} is {found}, {_SAME}")
    if len({row.terms for row in rows}) > 1:
        raise TermsDifferError(f"scale=, eps=, nonfinite= or another argument differs between ranks, {_SAME}")
    _check_pending(rows, members)


def _check_pending(rows: Sequence[Row], members: Sequence[int]) -> None:
    """Raise if sums cannot be made, because not all ranks that have a part of them have a gradient."""
    of: dict[float, list[tuple[int, Row]]] = {}
    for rank, row in zip(members, rows, strict=True):
        if row.pending_ranks:
            of.setdefault(row.pending_first, []).append((rank, row))
    for some in of.values():
        told = {(row.pending_ranks, row.pending_numel) for _, row in some}
        if len(told) > 1 or some[0][1].pending_ranks != len(some):
            found = "; ".join(f"{row.pending_numel:.0f} elements on rank {rank}" for rank, row in some)
            raise ValueError(
                f"gradients with a Partial placement differ between ranks ({found}), expected the same on the "
                f"{some[0][1].pending_ranks:.0f} ranks that have a part of the sum; set missing gradients to zero, or "
                "redistribute them before clipping; nothing was written on any rank"
            )


def _shown(value: float) -> str:
    return "None" if value == _NO_LIMIT else f"{value:g}"
