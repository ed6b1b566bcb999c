"""JSON Lines: one object a line. The monitor writes this format, and so do many trainers."""

import json

from gradclip.monitor._files._collector import Collector

__all__ = ["JsonLines"]


class JsonLines:
    """Reads one object a line."""

    def __init__(self, into: Collector) -> None:
        self._into = into

    def feed(self, line: str, number: int) -> None:
        """Take a line."""
        if not line.strip("\x00\r\n\t "):  # NULs are what a full disk or a crash leaves
            return None
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            return self._into.notes.fault(number, "not JSON" if line.endswith("\n") else "incomplete, at the end")
        if not isinstance(row, dict):
            return self._into.notes.fault(number, f"not a JSON object but {type(row).__name__}")
        return self._into.row(row, number)
