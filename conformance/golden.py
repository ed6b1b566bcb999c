"""Reads ``golden.json``: inputs and exact results. It needs NumPy only, so that what is installed can check itself."""

import json
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

FILE = Path(__file__).with_name("golden.json")

Vector: TypeAlias = dict[str, Any]
"""A call and its exact result; see README.md for the format."""


def vectors() -> list[Vector]:
    """Return the vectors of the committed file."""
    read: list[Vector] = json.loads(FILE.read_text())["vectors"]
    return read


def values_of(leaf: dict[str, Any]) -> NDArray[Any]:
    """Return a leaf's values, as float64 or complex128."""
    flat = np.array([float.fromhex(v) for v in leaf["values"]])
    if leaf["complex"]:
        flat = flat[: flat.size // 2] + 1j * flat[flat.size // 2 :]
    return flat.reshape(leaf["shape"])


def argument_of(value: Any) -> Any:
    """Return an argument: numbers are text, and so are names."""
    try:
        return float.fromhex(value)
    except (TypeError, ValueError):
        return value
