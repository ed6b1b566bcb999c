"""Numbers as text with units."""

from benchmarks.accuracy import Answer
from benchmarks.timing import Spread, Timing

WRONG = 1e-3
"""From this relative error on, the accuracy table shows the answer instead of its error."""

DOUBTFUL = 1e-4
"""From this relative error on, the error is shown beside the time."""


def time(seconds: float) -> str:
    """Return a time with three digits and its unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{_three(seconds / size)} {unit}"
    return f"{_three(seconds * 1e9)} ns"


def spread(of: Spread) -> str:
    """Return half of the distance between the quartiles, in percent of the median."""
    return f"±{(of.high - of.low) / 2 / of.median:.1%}"


def times(ratio: float) -> str:
    """Return a ratio as how many times."""
    return f"{ratio:.0f}×" if ratio >= 100 else f"{ratio:.2f}×" if ratio >= 0.095 else f"{ratio:.1g}×"


def times_with_quartiles(ratio: Spread) -> str:
    """Return a median ratio and its quartiles."""
    low, high = (times(number).rstrip("×") for number in (ratio.low, ratio.high))
    return f"{times(ratio.median)} ({low} to {high})"


def size(count: int) -> str:
    """Return a number of bytes with its unit."""
    if count < 10_000:
        return "< 10 kB"
    unit, unit_size = ("GB", 1e9) if count >= 1e9 else ("MB", 1e6) if count >= 1e6 else ("kB", 1e3)
    return f"{count / unit_size:.0f} {unit}" if count >= 10 * unit_size else f"{count / unit_size:.1f} {unit}"


def share(ratio: float) -> str:
    """Return a ratio in percent."""
    return f"{ratio:.0%}" if ratio >= 0.01 else "< 1%"


def bandwidth(moved: tuple[int, int], seconds: float) -> str:
    """Return the bytes read and written in a second."""
    return f"{sum(moved) / seconds / 1e9:.1f} GB/s"


def doubt(timing: Timing) -> str:
    """Return the error of an answer as text, or an empty text if it is only rounding."""
    worst = max(timing.errors.values(), default=0.0)
    return "" if worst <= DOUBTFUL else f"off by {worst:.0e}"


def is_wrong(answer: Answer) -> bool:
    """Whether an answer is off by more than 0.1 %."""
    return answer.error is not None and answer.error > WRONG


def answer(answer: Answer) -> str:
    """Return the error of an answer, the answer itself if it is wrong, or a dash if there is none."""
    if answer.value is None or answer.error is None:
        return "–"
    return f"{answer.value:.4g}" if is_wrong(answer) else f"{answer.error:.0e}" if answer.error else "0"


def _three(number: float) -> str:
    return f"{number:.2f}" if number < 10 else f"{number:.1f}" if number < 100 else f"{number:.0f}"
