"""The results of a run, and their JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import compact, units
from benchmarks.accuracy import Accuracy, Answer
from benchmarks.memory import Memory
from benchmarks.row import Skipped
from benchmarks.timing import Result, Spread, Timing

SCHEMA = 2
"""The version of the JSON format. Times are in seconds, memory in bytes; three numbers are a median and quartiles."""

_BUSY = 0.5
"""If the load per core before the first row is at least this, the report says that the machine was busy."""

METHOD = (
    "All contenders of a row run interleaved in one process, which each framework has for itself, in an order shuffled "
    "each round, after a warm-up, with "
    "the garbage collector off. Gradients are written anew before each sample, outside of the timed region. Times are "
    "medians of samples with half of the distance between their quartiles; a speed-up is the median over rounds of the "
    "other's time over gradclip's. The floor does no clipping: it reads the same bytes once (not clipped), or reads "
    "them and then reads and writes them (clipped); where the gradients are small, in one array of as many bytes."
)


@dataclass
class Report:
    """Everything measured, in order.

    Parameters
    ----------
    machine, versions : mapping
        The machine and the versions of packages.
    quick : bool
        Whether gradients were small (``--quick``): then the figures mean nothing.
    speed, memory, accuracy, skipped : list
        The results, and the rows that could not be measured.
    failed : dict
        The error of each row that raised one.
    seconds : float
        The duration of the run.
    """

    machine: Mapping[str, str | int | float]
    quick: bool
    versions: dict[str, str] = field(default_factory=dict)
    speed: list[Result] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    accuracy: list[Accuracy] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def caveat(self) -> str:
        """Why the figures are not reliable, or an empty text."""
        if self.quick:
            return "gradients were cut down: these figures mean nothing"
        load, cores = float(self.machine["load_before"]), int(self.machine["cores"])
        if load > _BUSY * cores:
            return f"the machine was busy already (load {load:g} on {cores} cores): these figures are not reliable"
        return ""

    def as_dict(self) -> dict[str, Any]:
        """Return the content of the JSON file: the figures of the tables."""
        return {
            "schema": SCHEMA,
            "machine": dict(self.machine),
            "versions": self.versions,
            "quick": self.quick,
            "caveat": self.caveat,
            "seconds": self.seconds,
            "speed": [_speed(result) for result in self.speed],
            "memory": [{"name": m.row.name, "gradients": m.gradients, "extra": dict(m.extra)} for m in self.memory],
            "accuracy": [_accuracy(a) for a in self.accuracy],
            "skipped": [asdict(s) for s in self.skipped],
            "failed": self.failed,
        }

    def write_json(self, path: Path) -> None:
        """Write the JSON file."""
        compact.write(path, self.as_dict())


def _speed(result: Result) -> dict[str, Any]:
    return {
        "name": result.row.name,
        "rounds": result.rounds,
        "contenders": {timing.name: _timing(timing) for timing in result.timings},
        "budgets": {f"{v.budget} against {v.budget.against}": v.met for v in result.verdicts},
    }


def _timing(timing: Timing) -> dict[str, Any]:
    found: dict[str, Any] = {"role": timing.role, "seconds": _quartiles(timing.seconds)}
    if timing.role != "ours":
        found["times_gradclip"] = _quartiles(timing.speedup)
    worst = max(timing.errors.values(), default=0.0)
    return found if worst <= units.DOUBTFUL else {**found, "error": worst}


def _quartiles(spread: Spread) -> list[float]:
    return [spread.median, spread.low, spread.high]


def _accuracy(accuracy: Accuracy) -> dict[str, Any]:
    def answers(of: Sequence[Answer]) -> dict[str, Any]:
        return {"right": of[0].right, **{a.implementation: [a.value, a.error] for a in of}}

    return {"case": accuracy.case, "norm": answers(accuracy.norms), "norm_after_clipping": answers(accuracy.clipped)}
