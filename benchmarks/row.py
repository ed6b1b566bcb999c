"""What is measured: rows, contenders, budgets. Here is no framework and no clock."""

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
        How many times as fast as ``against`` (``"faster"``), or in how many times its time (``"within"``).
    kind : {"faster", "within"}
        Which of the two.
    """

    against: str
    times: float
    kind: Literal["faster", "within"] = "faster"

    @property
    def speedup(self) -> float:
        """The least ratio of the other's time to ours."""
        return self.times if self.kind == "faster" else 1 / self.times

    def __str__(self) -> str:
        return f"≥ {self.times:g}×" if self.kind == "faster" else f"≤ {self.times:g}× the time"


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to do a row's work.

    Parameters
    ----------
    name : str
        As it stands in the table.
    role : {"ours", "peer", "floor"}
        A floor does no clipping: it moves the bytes that clipping has to move. Of several, the fastest counts.
    call : callable
        Does the work once, for a threshold.
    """

    name: str
    role: Role
    call: Callable[[float], Any]


@dataclass(frozen=True, slots=True)
class Schedule:
    """The threshold of each call in a sample: call k gets ``first * ratio**k``.

    Clipping in place shrinks the gradients, so that a second call with the same threshold has nothing left to do. Each
    sample therefore starts from restored gradients, outside of the timed region, and its thresholds fall by 2 % a call:
    more than the norm is off by after rounding, even in bfloat16, so that every call really clips. The longest sample
    (``timing.MOST_CALLS``) shrinks the gradients to 3e-5 of what they were, which is far from underflow in float32, and
    the next sample starts anew. Large sets, those of 16-bit numbers among them, take one call a sample.
    """

    first: float
    ratio: float = 1.0

    def thresholds(self, calls: int) -> list[float]:
        """Return the thresholds of a sample."""
        return [self.first * self.ratio**k for k in range(calls)]


def global_schedule(norm: float, case: str) -> Schedule:
    """Return thresholds that leave gradients of this norm alone, or that clip them at every call."""
    return Schedule(norm / 2, 0.98) if case == CLIPPED else Schedule(norm * 10)


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Setup:
    """Everything that a row needs in memory, and its contenders, which share it.

    Parameters
    ----------
    contenders : sequence of Contender
        Exactly one is ours.
    schedule : Schedule
        The thresholds.
    check : callable
        Takes what a call returned and its threshold; returns the relative errors of what it did, by what they are of.
    restore : callable
        Writes the gradients anew, as a backward pass would have; called before each sample.
    wait : callable
        Returns when everything that was started has ended, for frameworks that run ahead.
    """

    contenders: Sequence[Contender]
    schedule: Schedule
    check: Callable[[Any, float], Mapping[str, float]]
    restore: Callable[[], None] = _nothing
    wait: Callable[[], None] = _nothing


@dataclass(frozen=True, slots=True)
class Row:
    """One piece of work that everyone does side by side.

    Parameters
    ----------
    framework, operation : str
        Whose arrays, and which function of ours.
    gradients : GradientSet
        What is clipped.
    dtype, case : str
        Of what, and whether anything is clipped ("" where there is no such difference).
    build : callable
        Makes the setup, for these gradients or for others.
    passes : pair of int
        How many times the work has to read all gradients, and to write them.
    budgets : tuple of Budget
        What has to be reached.
    missing : str or None
        Why it cannot be measured here.
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
        """What ``--only`` is matched with: lower case, unique."""
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
        """The bytes that have to be read, and written."""
        total = self.gradients.size * self.itemsize
        return self.passes[0] * total, self.passes[1] * total

    @property
    def tolerance(self) -> Mapping[str, float]:
        """The errors that we may make: the contract's for the norm, the dtype's rounding for what is written."""
        return {"norm": 1e-6, "result": 1e-3 if self.dtype in _LOW_PRECISION else 1e-6}


@dataclass(frozen=True, slots=True)
class Skipped:
    """What is not measured, and why."""

    name: str
    reason: str


class Framework(Protocol):
    """What a module ``rows_*`` offers. It imports its framework at the top and may fail there."""

    def rows(self) -> Iterable[Row]:
        """Return the framework's rows, in the table's order."""
        ...

    def implementations(self) -> Iterable[Implementation]:
        """Return who takes part in the accuracy table."""
        ...

    def versions(self) -> Mapping[str, str]:
        """Return the versions and settings that its figures depend on."""
        ...
