"""Numbers as logs write them."""

__all__ = ["number", "whole"]

MISSING = frozenset({"", "none", "null", "-"})
TRUTH = {"true": 1.0, "false": 0.0}


def number(cell: object) -> float | None:
    """Return a cell's number; None if it is blank. NaN and inf are numbers.

    Raises
    ------
    ValueError
        If it is something else.
    """
    if cell is None or isinstance(cell, float):
        return cell
    if isinstance(cell, int):
        return _float(cell)
    if isinstance(cell, str):
        try:
            return float(cell)  # the usual case
        except ValueError:
            text = cell.strip().lower()
        if text in MISSING:
            return None
        return TRUTH[text] if text in TRUTH else _float(text)
    raise ValueError("not a number")


def whole(cell: object) -> int:
    """Return a cell's whole number, within 64 bits.

    Raises
    ------
    ValueError
        If it is something else.
    """
    if isinstance(cell, str) and len(cell) < 20 and cell.isdecimal():
        cell = int(cell)
    if type(cell) is int and -(2**63) <= cell < 2**63:
        return cell
    value = number(cell)
    if value is None or value != value // 1 or abs(value) >= 2**63:
        raise ValueError("not a whole number")
    return int(value)


def _float(value: int | str) -> float:
    try:
        return float(value)
    except (OverflowError, ValueError):
        raise ValueError("not a number") from None
