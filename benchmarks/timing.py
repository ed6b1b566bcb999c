"""Measures times: all contenders of a row take turns in one process."""

import gc
import math
import random
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter, perf_counter_ns

from benchmarks.row import Budget, Contender, Role, Row, Setup

MOST_CALLS = 512
"""The most calls in a sample; see ``row.Schedule``."""

_SEED = 1


class WrongAnswerError(Exception):
    """Our own answer breaks the contract, so its time is not measured."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure.

    Parameters
    ----------
    rounds : int or None
        Samples of each contender; None for as many as fit in ``row_seconds``, at least ``few`` and at most ``many``. A
        row with a budget has three times as long, because a few per cent decide whether it is met.
    sample_seconds : float
        The least duration of a sample. Shorter work is called several times in a sample.
    shrink : bool
        Whether to use small gradients, to check in seconds that everything works.
    """

    rounds: int | None = None
    sample_seconds: float = 1e-2
    row_seconds: float = 3.0
    few: int = 7
    many: int = 41
    shrink: bool = False


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with its quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Spread":
        """Return the quartiles of samples."""
        if len(samples) < 2:
            return cls(samples[0], samples[0], samples[0])
        low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass(frozen=True, slots=True)
class Timing:
    """The times of one contender.

    Parameters
    ----------
    seconds : Spread
        The time of one call.
    speedup : Spread
        The median and quartiles of (its time / our time) of each round, so that a period in which the machine is slow
        affects both. 1 for ours.
    calls : int
        Calls in each sample.
    errors : mapping
        The relative errors of its answer, by name.
    """

    name: str
    role: Role
    seconds: Spread
    speedup: Spread
    calls: int
    errors: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A budget, and the ratio that was reached."""

    budget: Budget
    reached: float

    @property
    def met(self) -> bool:
        """Whether the median reaches the budget."""
        return self.reached >= self.budget.speedup


@dataclass(frozen=True, slots=True)
class Result:
    """The results of a row: our times first, then the peers', then the floor's."""

    row: Row
    timings: Sequence[Timing]
    rounds: int

    @property
    def ours(self) -> Timing:
        """Our own timing."""
        return next(t for t in self.timings if t.role == "ours")

    @property
    def peers(self) -> list[Timing]:
        """The peers' timings. The first peer is the most common one."""
        return [t for t in self.timings if t.role == "peer"]

    @property
    def floor(self) -> Timing | None:
        """The fastest of the floors."""
        return next((t for t in self.timings if t.role == "floor"), None)

    @property
    def verdicts(self) -> list[Verdict]:
        """The row's budgets, with what was reached."""
        by_name = {t.name: t for t in self.timings} | ({"floor": self.floor} if self.floor else {})
        return [Verdict(b, by_name[b.against].speedup.median) for b in self.row.budgets]


def measure(row: Row, plan: Plan) -> Result:
    """Measure a row: check every answer, then sample all contenders in turn.

    Raises
    ------
    WrongAnswerError
        If our own answer is wrong. A wrong answer of a peer is reported with its time.
    """
    setup = row.build(row.gradients.shrunk() if plan.shrink else row.gradients)
    errors = {c.name: _answer(setup, c) for c in setup.contenders if c.role != "floor"}
    _refuse_wrong(row, setup, errors)
    with _no_collection():
        single = {c.name: _single(setup, c) for c in setup.contenders}  # this also warms everything up
        chosen = _with_fastest_floor(setup.contenders, single)
        calls = {c.name: min(MOST_CALLS, math.ceil(plan.sample_seconds / single[c.name])) for c in chosen}
        start = perf_counter()
        for c in chosen:
            _sample(setup, c, calls[c.name])
        rounds = plan.rounds or _rounds(plan, perf_counter() - start, longer=3 if row.budgets else 1)
        rounds = min(rounds, row.rounds or rounds)
        samples: dict[str, list[float]] = {c.name: [] for c in chosen}
        for order in _orders(chosen, rounds):
            for c in order:
                samples[c.name].append(_sample(setup, c, calls[c.name]))
    ours = samples[next(c.name for c in chosen if c.role == "ours")]
    timings = [
        Timing(
            c.name,
            c.role,
            Spread.of(samples[c.name]),
            ratio(samples[c.name], ours),
            calls[c.name],
            errors.get(c.name, {}),
        )
        for c in chosen
    ]
    return Result(row, timings, rounds)


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> Spread:
    """Return the spread of the ratios of corresponding samples."""
    return Spread.of([a / b for a, b in zip(theirs, ours, strict=True)])


def _answer(setup: Setup, contender: Contender) -> Mapping[str, float]:
    setup.restore()
    threshold = setup.schedule.first
    answer = contender.call(threshold)
    setup.wait()
    return setup.check(answer, threshold)


def _refuse_wrong(row: Row, setup: Setup, errors: Mapping[str, Mapping[str, float]]) -> None:
    ours = next(c.name for c in setup.contenders if c.role == "ours")
    for what, error in errors[ours].items():
        if not error <= row.tolerance[what]:
            raise WrongAnswerError(
                f"{row.name}: the {what} is off by {error:.2g}, expected at most {row.tolerance[what]:.2g}"
            )


def _single(setup: Setup, contender: Contender) -> float:
    first = _sample(setup, contender, 1)
    return first if first > 1 else min(first, *(_sample(setup, contender, 1) for _ in range(2)))


def _sample(setup: Setup, contender: Contender, calls: int) -> float:
    """Return the seconds of a call: the mean of ``calls`` calls, on restored gradients."""
    thresholds = setup.schedule.thresholds(calls)
    setup.restore()
    setup.wait()
    call = contender.call
    start = perf_counter_ns()
    for threshold in thresholds:
        call(threshold)
    setup.wait()
    return (perf_counter_ns() - start) / calls * 1e-9


def _with_fastest_floor(contenders: Sequence[Contender], single: Mapping[str, float]) -> list[Contender]:
    floors = sorted((c for c in contenders if c.role == "floor"), key=lambda c: single[c.name])
    return [c for c in contenders if c.role != "floor"] + floors[:1]


def _rounds(plan: Plan, seconds: float, longer: int) -> int:
    """Return how many rounds to run, if one takes ``seconds``: an odd number, so that the median is one of them."""
    return min(plan.many * longer, max(plan.few, round(plan.row_seconds * longer / max(seconds, 1e-9)))) | 1


def _orders(contenders: Sequence[Contender], rounds: int) -> Iterator[list[Contender]]:
    """Yield each round's order. It is shuffled, so that no contender always runs after the same one."""
    shuffle = random.Random(_SEED)
    for _ in range(rounds):
        order = list(contenders)
        shuffle.shuffle(order)
        yield order


@contextmanager
def _no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
