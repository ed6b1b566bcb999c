"""JSON that people can read and compare: one line per row, numbers with six digits."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DIGITS = 6


def write(path: Path, found: Mapping[str, Any]) -> None:
    """Write results as JSON. Numbers that are not finite become strings, because JSON does not have them."""
    lines = (f"{json.dumps(key)}: {_text(rounded(value))}" for key, value in found.items())
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def rounded(value: Any) -> Any:
    """Return a copy with rounded floats."""
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else str(value)
    return value


def _text(value: Any) -> str:
    if not (isinstance(value, list) and value):
        return json.dumps(value, allow_nan=False, ensure_ascii=False)
    return "[\n" + ",\n".join(f" {json.dumps(item, allow_nan=False, ensure_ascii=False)}" for item in value) + "\n]"
