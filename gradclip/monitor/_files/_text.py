"""A plain text log: a regular expression finds the norm, and the step and the loss if there are such."""

import re
from collections.abc import Sequence
from typing import Final

from gradclip.monitor._files._collector import Collector
from gradclip.monitor._files._error import ReadError

__all__ = ["USUAL", "Text", "compiled", "has_norms"]

COLUMNS: Final = {"norm": "grad_norm", "step": "step", "loss": "loss"}
"""Groups of a pattern, and the columns that they stand for."""

NUMBER: Final = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?|nan|[-+]?inf(?:inity)?"
_BETWEEN: Final = r"['\"]?\s*[:=|]?\s*['\"]?"

USUAL: Final = {
    "norm": re.compile(rf"(?:grad(?:ient)?[_ -]?norm|\bgnorm){_BETWEEN}(?P<norm>{NUMBER})", re.IGNORECASE),
    "step": re.compile(rf"\b(?:global[_ ])?(?:step|iter(?:ation)?){_BETWEEN}(?P<step>\d+)", re.IGNORECASE),
    "loss": re.compile(rf"(?<![\w/])(?:lm |train(?:ing)?[_ /])?loss{_BETWEEN}(?P<loss>{NUMBER})", re.IGNORECASE),
}
"""What is looked for without a pattern: "step: 10 … loss: 2.31 … grad_norm: 0.52", in any order."""

_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")
"""Codes that colour a terminal's text."""


class Text:
    """Reads the lines that match.

    Parameters
    ----------
    into
        Where the values go.
    pattern
        A regular expression with groups named ``norm`` and, if wanted, ``step`` and ``loss``; None: what is usual.
    """

    def __init__(self, into: Collector, pattern: re.Pattern[str] | None) -> None:
        self._into = into
        self._patterns = [pattern] if pattern else list(USUAL.values())

    def feed(self, line: str, number: int) -> None:
        """Take a line."""
        plain = _COLOURS.sub("", line) if "\x1b" in line else line
        if first := self._patterns[0].search(plain):
            found = first.groupdict()
            for pattern in self._patterns[1:]:
                if match := pattern.search(plain):
                    found |= match.groupdict()
            cells = {name: found[group] for group, name in COLUMNS.items() if found.get(group) is not None}
            self._into.row(cells, number)


def has_norms(lines: Sequence[str]) -> bool:
    """Return whether a line holds a norm without a pattern's being given."""
    return any(USUAL["norm"].search(_COLOURS.sub("", line)) for line in lines)


def compiled(pattern: str) -> re.Pattern[str]:
    """Return the regular expression.

    Raises
    ------
    ReadError
        If it is none, or has no group named ``norm``.
    """
    try:
        result = re.compile(pattern)
    except re.error as error:
        raise ReadError(f"--pattern {pattern!r} is not a regular expression: {error}") from None
    if "norm" not in result.groupindex:
        groups = ", ".join(result.groupindex) or "none"
        raise ReadError(
            f"--pattern {pattern!r} needs a group named norm, such as 'gnorm (?P<norm>\\S+)'; "
            f"its named groups: {groups}"
        )
    return result
