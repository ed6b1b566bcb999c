"""Makes ``golden.json``: inputs and exact results, for ports of gradclip to any language. See README.md for the format.

``python -m gradclip.conformance.make_golden`` writes the file anew; a test compares the committed one with what this
makes. Nothing of gradclip's is used: results are calculated in integers, fractions and 80 digits, and rounded once.
"""

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gradclip.conformance import oracles
from gradclip.conformance.checks import ULPS
from gradclip.conformance.golden import FILE, Vector
from gradclip.conformance.oracles import (
    Real,
    Values,
    coefficient,
    component,
    exact,
    format_of,
    norm_dtype,
    round_to,
    scaled,
)
from gradclip.conformance.values import is_complex, normal, portable_spread, representable

FORMAT = 1
REALS = ("float16", "bfloat16", "float32", "float64")
ALL = (*REALS, "complex64", "complex128")


def number(x: float) -> str:
    """Return a float as text that any language reads back exactly: C's hexadecimal notation, nan, inf or -inf."""
    return float(x).hex() if math.isfinite(x) else str(x)


def leaf(values: Values | Sequence[float], shape: Sequence[int], *, complex_: bool = False) -> dict[str, Any]:
    """Return a leaf as text; complex ones as all real parts, then all imaginary parts."""
    flat = oracles.components(values) if isinstance(values, np.ndarray) else values
    return {"shape": list(shape), "complex": complex_, "values": [number(v) for v in flat]}


def vector(
    name: str,
    clause: int,
    function: str,
    dtype: str,
    leaves: Sequence[Values],
    arguments: dict[str, Any],
    norm: Real | float | None,
) -> Vector:
    """Return the fields that all vectors have: the call, and the exact norm, rounded to its dtype."""
    made: Vector = {
        "name": f"{name}[{dtype}]",
        "clause": clause,
        "function": function,
        "dtype": dtype,
        "leaves": [leaf(x, x.shape, complex_=is_complex(dtype)) for x in leaves],
        "arguments": {k: number(v) if isinstance(v, float) else v for k, v in arguments.items()},
    }
    if norm is not None:
        wide = norm_dtype([dtype])
        made["norm"] = number(norm if isinstance(norm, float) else round_to(norm, wide))
        made["norm_dtype"] = wide
        made["norm_error"] = number(1e-14 if wide == "float64" else 1e-6)
    return made


def times(made: Vector, leaves: Sequence[Values], factors: Sequence[Real], dtype: str) -> Vector:
    """Add the result, leaves times factors with each element rounded once, and how far a port may be from it."""
    made["result"] = [
        leaf([round_to(v, dtype) for v in scaled(x, f)], x.shape, complex_=is_complex(dtype))
        for x, f in zip(leaves, factors, strict=True)
    ]
    made["ulps"] = 0 if all(f == 1 for f in factors) else math.ceil(ULPS[component(dtype)])
    return made


def global_clip(
    name: str, clause: int, dtype: str, leaves: Sequence[Values], max_norm: float, **options: Any
) -> Vector:
    """Return a vector of clip_by_global_norm."""
    order, scale, eps = (options.get(k, d) for k, d in (("ord", 2.0), ("scale", 1.0), ("eps", 0.0)))
    size = oracles.norm(leaves, order) / exact(scale)
    factor = coefficient(size, max_norm, eps) / exact(scale)
    made = vector(name, clause, "clip_by_global_norm", dtype, leaves, {"max_norm": max_norm, **options}, size)
    return times(made, leaves, [factor] * len(leaves), dtype)


def norms() -> Iterator[Vector]:
    """Clauses 1 and 2: norms of every order, of several leaves, empty and 0-d ones too."""
    for dtype in ALL:
        leaves = [portable_spread((2, 3), dtype, 1), portable_spread((0,), dtype), portable_spread((), dtype, 2)]
        for order in (0.5, 1.0, 2.0, 3.0, math.inf):
            size = oracles.norm(leaves, order)
            yield vector(f"norm of order {order:g}", 1, "global_norm", dtype, leaves, {"ord": order}, size)
        tenths = representable(np.full(40, 0.1), dtype)
        yield vector("forty tenths", 2, "global_norm", dtype, [tenths], {}, oracles.norm([tenths]))


def ranges() -> Iterator[Vector]:
    """Clause 3: any magnitude, also where the norm itself cannot be represented."""
    for dtype in ALL:
        fmt = format_of(dtype)
        for name, unit in (("least normal", fmt.tiny), ("least", fmt.tiny * fmt.eps), ("largest", fmt.largest)):
            leaves = [
                representable(np.array([unit, -unit, unit, 0.0]), dtype),
                representable(np.array([[unit]]), dtype),
            ]
            for limit in (1.0, unit if unit > 1 else unit * 64 * fmt.eps if name == "least normal" else unit):
                made = global_clip(f"{name} clipped to {limit:g}", 3, dtype, leaves, float(limit))
                if _has_subnormals(made):
                    made["name"] = f"subnormal: {made['name']}"  # so that an xfail line can match these
                yield made


def _has_subnormals(made: Vector) -> bool:
    tiny = format_of(made["dtype"]).tiny
    numbers = [abs(float.fromhex(v)) for part in ("leaves", "result") for x in made[part] for v in x["values"]]
    return any(0 < v < tiny for v in numbers)


def clips() -> Iterator[Vector]:
    """Clauses 4, 5 and 15: below, at and above the threshold, tiny thresholds, other orders, eps, loss scales."""
    for dtype in ALL:
        leaves = [normal((3, 2), dtype, 3), normal((4,), dtype, 4)]
        for limit in (0.0, 1e-7, 0.5, 100.0, math.inf):
            if limit == math.inf:
                made = vector(
                    "max_norm inf", 7, "clip_by_global_norm", dtype, leaves, {"max_norm": limit}, oracles.norm(leaves)
                )
                yield times(made, leaves, [exact(1)] * 2, dtype)
            else:
                yield global_clip(f"max_norm {limit:g}", 4 if limit == 100.0 else 5, dtype, leaves, limit)
        exactly = representable(np.array([3.0, 4.0]), dtype)
        yield global_clip("at the threshold", 4, dtype, [exactly], 5.0)
        yield global_clip("zeros", 6, dtype, [representable(np.zeros(n), dtype) for n in (3, (0, 2))], 1.0)
    for dtype in ("float32", "float64"):
        leaves = [normal((5,), dtype, 5, size=1024.0)]
        yield global_clip("loss scale, clipped", 15, dtype, leaves, 0.5, scale=1024.0)
        yield global_clip("loss scale, not clipped", 15, dtype, leaves, 100.0, scale=1024.0)
        yield global_clip("eps", 5, dtype, leaves, 0.5, eps=1.0)
        yield from (global_clip(f"order {p:g}", 5, dtype, leaves, 0.5, ord=p) for p in (1.0, 3.0, math.inf))


def leafwise() -> Iterator[Vector]:
    """Each leaf by its own norm or root mean square."""
    for dtype in REALS:
        leaves = [normal((3, 2), dtype, 6), normal((4,), dtype, 7, size=2.0**-6)]
        made = vector("each leaf", 1, "clip_by_norm", dtype, leaves, {"max_norm": 0.5}, None)
        yield times(made, leaves, [coefficient(oracles.norm([x]), 0.5) for x in leaves], dtype)
        made = vector("each leaf", 1, "clip_by_rms", dtype, leaves, {"max_rms": 0.25}, None)
        yield times(made, leaves, [coefficient(oracles.rms(x), 0.25) for x in leaves], dtype)


def units() -> Iterator[Vector]:
    """Adaptive clipping, unit by unit; the parameters follow the gradients."""
    for dtype in ("float32", "float64"):
        for shape in ((4,), (3, 2), (2, 2, 2), (2, 1, 2, 3)):
            grad, weight = normal(shape, dtype, 8), normal(shape, dtype, 9)
            result = grad.copy()
            axes = oracles.unit_axes(shape)
            for (key, unit), (_, of_weight) in zip(oracles.units(grad, axes), oracles.units(weight, axes), strict=True):
                limit = exact(0.25) * max(oracles.norm([of_weight]), exact(1e-3))
                right = [round_to(v, dtype) for v in scaled(unit, coefficient(oracles.norm([unit]), limit))]
                result[key] = np.reshape(right, unit.shape)
            made = vector(
                f"units of {len(shape)} axes",
                1,
                "adaptive_grad_clip",
                dtype,
                [grad],
                {"clipping": 0.25, "eps": 1e-3},
                None,
            )
            made["params"] = [leaf(weight, shape)]
            made["result"], made["ulps"] = [leaf(result, shape)], 4
            yield made


def values() -> Iterator[Vector]:
    """Clause 10: by value, with what is not finite."""
    given = [-7.0, -0.5, -0.25, -0.0, 0.25, 3.0, math.inf, -math.inf, math.nan]
    for dtype in REALS:
        x = np.array(given)
        for high, low in ((0.5, -0.5), (2.0, 0.0)):
            made = vector(
                f"[{low:g}, {high:g}]", 10, "clip_by_value", dtype, [x], {"max_value": high, "min_value": low}, None
            )
            made["result"], made["ulps"] = [leaf(np.clip(x, low, high), x.shape)], 0
            yield made


def nonfinite() -> Iterator[Vector]:
    """Clause 9: NaN and inf, spread or made zero."""
    for dtype in REALS:
        for bad in (math.nan, math.inf, -math.inf):
            x = np.array([1.0, bad, 3.0])
            spread_to = [math.nan] * 3 if math.isnan(bad) else [0.0, math.nan, 0.0]
            for policy, right in (("propagate", spread_to), ("zero", [0.0] * 3)):
                arguments = {"max_norm": 1.0, "nonfinite": policy}
                made = vector(f"{bad} {policy}", 9, "clip_by_global_norm", dtype, [x], arguments, abs(bad))
                made["result"], made["ulps"] = [leaf(right, (3,))], 0
                yield made


def text() -> str:
    """Return the file's text."""
    made = [v for part in (norms, ranges, clips, leafwise, units, values, nonfinite) for v in part()]
    lines = ",\n".join("    " + json.dumps(v, separators=(", ", ": ")) for v in made)
    return f'{{\n  "format": {FORMAT},\n  "vectors": [\n{lines}\n  ]\n}}\n'


if __name__ == "__main__":
    FILE.write_text(text())
    print(f"{FILE.name}: {FILE.stat().st_size:,} bytes")
