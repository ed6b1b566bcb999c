"""Numbers and counts as text, the same in tables and figures."""

import math

__all__ = ["counted", "percent", "short"]


def short(value: float) -> str:
    """Return a number with three digits: 0.0123, 1.5, 1200, 3.4e+08, inf."""
    if not math.isfinite(value):
        return str(value)
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
        text = f"{value:.{digits}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{value:.2g}"


def percent(share: float) -> str:
    """Return a share in percent: "0 %", "0.02 %", "3.1 %", "45 %", "99.8 %"; "100 %" only if it is all."""
    less = float(f"{100 * min(share, 1 - share):.2g}")
    return f"{short(less) if share <= 0.5 else f'{100 - less:.10g}'} %"


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: "1 step", "1,500 steps"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"
