"""All that a run found, and its JSON."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.accuracy import Accuracy, Answer
from benchmarks.memory import Memory
from benchmarks.row import Skipped
from benchmarks.timing import Result, Timing

SCHEMA = 1

_BUSY = 0.5
"""The load for each core, before the first row, from which a run says that it was disturbed."""

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
        What it was measured on.
    quick : bool
        Whether gradients were cut down: then no figure means anything.
    speed, memory, accuracy, skipped : list
        What was found, and what could not be measured.
    failed : dict
        Rows that raised, and what.
    seconds : float
        How long it took.
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
        """Why the figures are not to be relied on, or nothing."""
        if self.quick:
            return "gradients were cut down: these figures mean nothing"
        load, cores = float(self.machine["load_before"]), int(self.machine["cores"])
        if load > _BUSY * cores:
            return f"the machine was busy already (load {load:g} on {cores} cores): these figures are not reliable"
        return ""

    def as_dict(self) -> dict[str, Any]:
        """Return what the JSON file holds."""
        return {
            "schema": SCHEMA,
            "method": METHOD,
            "machine": dict(self.machine),
            "versions": self.versions,
            "quick": self.quick,
            "caveat": self.caveat,
            "seconds": round(self.seconds, 1),
            "speed": [_speed(result) for result in self.speed],
            "memory": [
                {"name": m.row.name, "gradients_bytes": m.gradients, "extra_bytes": dict(m.extra)} for m in self.memory
            ],
            "accuracy": [_accuracy(a) for a in self.accuracy],
            "skipped": [asdict(s) for s in self.skipped],
            "failed": self.failed,
        }

    def write_json(self, path: Path) -> None:
        """Write everything; what is not finite, which JSON does not know, as a string."""
        path.write_text(json.dumps(_finite(self.as_dict()), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _speed(result: Result) -> dict[str, Any]:
    row = result.row
    return {
        "name": row.name,
        "framework": row.framework,
        "operation": row.operation,
        "gradients": row.gradients.title,
        "leaves": len(row.gradients.shapes),
        "elements": row.gradients.size,
        "dtype": row.dtype,
        "case": row.case,
        "bytes_read": row.bytes_moved[0],
        "bytes_written": row.bytes_moved[1],
        "rounds": result.rounds,
        "contenders": [_timing(t) for t in result.timings],
        "budgets": [
            {**asdict(v.budget), "speedup_wanted": v.budget.speedup, "speedup_reached": v.reached, "met": v.met}
            for v in result.verdicts
        ],
    }


def _timing(timing: Timing) -> dict[str, Any]:
    return {
        "name": timing.name,
        "role": timing.role,
        "calls_per_sample": timing.calls,
        "seconds": asdict(timing.seconds),
        "times_gradclip": asdict(timing.speedup),
        "errors": dict(timing.errors),
    }


def _accuracy(accuracy: Accuracy) -> dict[str, Any]:
    def answers(of: list[Answer]) -> list[dict[str, Any]]:
        return [{**asdict(answer), "error": answer.error} for answer in of]

    return {
        "case": accuracy.case,
        "norm": answers(list(accuracy.norms)),
        "norm_after_clipping": answers(list(accuracy.clipped)),
    }


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and value - value != 0:  # inf and NaN
        return str(value)
    return value
