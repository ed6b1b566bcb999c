"""What is measured: rows, contenders, budgets. This module imports no framework and measures no time."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

from benchmarks.accuracy import Implementation
from benchmarks.sets import GradientSet

Role: TypeAlias = Literal["ours", "peer", "floor"]

UNCLIPPED = "not clipped"
CLIPPED = "clipped"

_LOW_PRECISION = {"float16", "bfloat16"}


@dataclass(frozen=True, slots=True)
class Budget:
    """The ratio that a row has to reach.

    Parameters
    ----------
    against : str
        The name of a contender, or ``"floor"``.
    times : float
        How many times as fast as ``against`` ours must be (``"faster"``), or within how many times its time
        (``"within"``).
    kind : {"faster", "within"}
        Which of the two.
    """

    against: str
    times: float
    kind: Literal["faster", "within"] = "faster"

    @property
    def speedup(self) -> float:
        """The least ratio of the other contender's time to ours."""
        return self.times if self.kind == "faster" else 1 / self.times

    def __str__(self) -> str:
        return f"≥ {self.times:g}×" if self.kind == "faster" else f"≤ {self.times:g}× the time"


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to do a row's work.

    Parameters
    ----------
    name : str
        The name in the table.
    role : {"ours", "peer", "floor"}
        A floor does not clip: it moves the bytes that clipping has to move. If there are several, the fastest counts.
    call : callable
        Takes a threshold and does the work once.
    """

    name: str
    role: Role
    call: Callable[[float], Any]


@dataclass(frozen=True, slots=True)
class Schedule:
    """The threshold of each call in a sample: call k gets ``first * ratio**k``.

    After clipping in place, a second call with the same threshold has nothing to do. So the gradients are restored
    before each sample, outside of the timed region, and the threshold falls by 2 % from call to call. That is more than
    the rounding error of the norm, even in bfloat16, so every call clips. The longest sample (``timing.MOST_CALLS``)
    shrinks the gradients to 3e-5 of their values, which is far from underflow in float32. Large sets, which include
    those of 16-bit numbers, have one call per sample.
    """

    first: float
    ratio: float = 1.0

    def thresholds(self, calls: int) -> list[float]:
        """Return the thresholds of a sample."""
        return [self.first * self.ratio**k for k in range(calls)]


def global_schedule(norm: float, case: str) -> Schedule:
    """Return thresholds that do not clip gradients of this norm, or that clip them in every call."""
    return Schedule(norm / 2, 0.98) if case == CLIPPED else Schedule(norm * 10)


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Setup:
    """The contenders of a row, which work on the same memory, and what is needed to run them.

    Parameters
    ----------
    contenders : sequence of Contender
        Exactly one is ours.
    schedule : Schedule
        The thresholds.
    check : callable
        Takes the result of a call and its threshold; returns a dict of relative errors.
    restore : callable
        Writes the gradients again, as a backward pass does; called before each sample.
    wait : callable
        Waits until all work has ended, for frameworks that return before that.
    """

    contenders: Sequence[Contender]
    schedule: Schedule
    check: Callable[[Any, float], Mapping[str, float]]
    restore: Callable[[], None] = _nothing
    wait: Callable[[], None] = _nothing


@dataclass(frozen=True, slots=True)
class Row:
    """One piece of work that all contenders do.

    Parameters
    ----------
    framework, operation : str
        The framework of the arrays, and our function.
    gradients : GradientSet
        The gradients that are clipped.
    dtype, case : str
        Their dtype, and whether they are clipped ("" if there is no such difference).
    build : callable
        Makes the setup, for these gradients or for others.
    passes : pair of int
        How often the work has to read all gradients, and how often to write them.
    budgets : tuple of Budget
        The ratios that must be reached.
    missing : str or None
        Why the row cannot be measured here.
    memory : bool
        Whether the memory that each contender allocates is measured too.
    rounds : int or None
        The most samples of each contender, for work that takes many seconds.
    """

    framework: str
    operation: str
    gradients: GradientSet
    dtype: str
    case: str
    build: Callable[[GradientSet], Setup]
    passes: tuple[int, int] = (1, 0)
    budgets: tuple[Budget, ...] = field(default=())
    missing: str | None = None
    memory: bool = False
    rounds: int | None = None

    @property
    def name(self) -> str:
        """The name that ``--only`` is matched with: lower case, unique."""
        words = (self.framework, self.operation, self.gradients.title, self.dtype, self.case)
        return "/".join(re.sub(r"[^a-z0-9_]+", "-", word.lower().replace(",", "")) for word in words if word)

    @property
    def work(self) -> str:
        """The gradients, the dtype and the case in words."""
        return ", ".join(word for word in (self.gradients.title, self.dtype, self.case) if word)

    @property
    def itemsize(self) -> int:
        """The bytes of an element."""
        return {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}[self.dtype]

    @property
    def bytes_moved(self) -> tuple[int, int]:
        """The bytes that have to be read and written."""
        total = self.gradients.size * self.itemsize
        return self.passes[0] * total, self.passes[1] * total

    @property
    def tolerance(self) -> Mapping[str, float]:
        """The errors that are allowed: the contract's for the norm, the dtype's rounding for what is written."""
        return {"norm": 1e-6, "result": 1e-3 if self.dtype in _LOW_PRECISION else 1e-6}


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row or framework that is not measured, and why."""

    name: str
    reason: str


class Framework(Protocol):
    """The functions of a module ``rows_*``. The module imports its framework at the top, and may fail there."""

    def rows(self) -> Iterable[Row]:
        """Return the framework's rows, in the table's order."""
        ...

    def implementations(self) -> Iterable[Implementation]:
        """Return the implementations for the accuracy table."""
        ...

    def versions(self) -> Mapping[str, str]:
        """Return the versions and settings on which its figures depend."""
        ...
