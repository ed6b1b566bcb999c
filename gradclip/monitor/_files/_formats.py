"""Which format a log has, by its content."""

import json
import re
from typing import Final, Literal, TypeAlias

from gradclip.monitor._files._csv import delimiter_of
from gradclip.monitor._files._text import has_norms

__all__ = ["Format", "recognise"]

Format: TypeAlias = Literal["csv", "events", "json", "json lines", "text"]

EVENT_FILE: Final = re.compile(rb".{12}\x09.{8}\x1a.brain\.Event:", re.DOTALL)
"""The start of a TensorBoard event file: a record's length and checksum, then the version as the first event."""


def recognise(start: bytes, text: str) -> Format | None:
    """Return the format of a log that starts with these bytes, which stand for this text; None if it is not known."""
    if EVENT_FILE.match(start):
        return "events"
    lines = [line for line in text.splitlines() if line.strip("\x00 \t")]
    if not lines or "\x00" in lines[0]:
        return None
    first = lines[0].lstrip()
    if first[0] in "{[" and (found := _json(first, text)):
        return found
    if delimiter_of(lines):
        return "csv"
    return "text" if has_norms(lines) else None


def _json(first: str, text: str) -> Format | None:
    """Return "json lines" if the first line is a complete object, "json" if it starts one or a list of objects."""
    try:
        row = json.loads(first)
    except (ValueError, RecursionError):
        return "json" if re.match(r"\s*(?:\{\s*(?:\"|$)|\[\s*(?:\{|$))", text) else None
    return "json lines" if isinstance(row, dict) and "log_history" not in row else "json"
