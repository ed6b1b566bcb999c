"""What was wrong in a log that could be read all the same: each kind of fault with its count and first lines."""

from dataclasses import dataclass, field

__all__ = ["Notes"]

LINES_NAMED = 3
"""How many line numbers a note names for one kind of fault."""


@dataclass
class Notes:
    """Faults by kind, and other remarks, in the order in which they were found."""

    unit: str = "line"
    """What is counted: "line", or "event" in TensorBoard's files."""

    _lines: dict[str, list[int]] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)
    _remarks: list[str] = field(default_factory=list)

    def fault(self, line: int, kind: str) -> None:
        """Count a fault. ``line`` counts from 1, and so do events."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        lines = self._lines.setdefault(kind, [])
        if len(lines) < LINES_NAMED:
            lines.append(line)

    def remark(self, text: str) -> None:
        """Add a remark once."""
        if text not in self._remarks:
            self._remarks.append(text)

    @property
    def faults(self) -> int:
        """The number of faults."""
        return sum(self._counts.values())

    def texts(self) -> list[str]:
        """Return one sentence for each kind of fault, then the remarks."""
        return [
            _sentence(self.unit, kind, count, self._lines[kind]) for kind, count in self._counts.items()
        ] + self._remarks


def _sentence(unit: str, kind: str, count: int, lines: list[int]) -> str:
    """Return for example "lines 7, 12, 40 and 5 others: not JSON; left out"."""
    named = ", ".join(f"{line:,}" for line in lines)
    more = count - len(lines)
    others = f" and {more:,} other{'s' * (more > 1)}" if more else ""
    return f"{unit}{'s' * (count > 1)} {named}{others}: {kind}; left out"
