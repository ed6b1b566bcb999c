"""The error of each library's norm and clipped gradients, compared with exact arithmetic."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from benchmarks.exact import exact_norm, relative_error, wide_norm
from benchmarks.sets import NDArray, dtype_of

_LARGE = 1 << 26
_SEED = 7
MAX_NORM = 1.0


@dataclass(frozen=True, slots=True)
class Implementation:
    """One way to compute a norm and to clip, for the accuracy table.

    Parameters
    ----------
    name : str
        The name in the table.
    role : {"ours", "peer"}
        Whose it is.
    norm : callable
        Takes NumPy leaves, converts them to the framework's arrays without rounding, and returns the norm.
    clip : callable or None
        The same for clipping by global norm; returns NumPy arrays. None if it only computes norms.
    most_leaves : int
        It is not run with more leaves, because compiling for thousands of leaves takes minutes.
    """

    name: str
    role: Literal["ours", "peer"]
    norm: Callable[[list[NDArray]], float]
    clip: Callable[[list[NDArray], float], list[NDArray]] | None = None
    most_leaves: int = 1 << 20


@dataclass(frozen=True, slots=True)
class Case:
    """Gradients for which some implementations are inaccurate.

    Parameters
    ----------
    name : str
        Describes them.
    leaves : callable
        Makes them; takes the number by which to divide large sizes.
    quick : bool
        Whether ``--quick`` includes it. Some frameworks compile for each case, which takes long.
    """

    name: str
    leaves: Callable[[int], list[NDArray]]
    quick: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of an implementation, and the right one. None if it was not run."""

    implementation: str
    role: Literal["ours", "peer"]
    value: float | None
    right: float

    @property
    def error(self) -> float | None:
        """The relative error; inf for NaN."""
        return None if self.value is None else relative_error(self.value, self.right)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """The answers to one case: the norm, and the norm after clipping to ``MAX_NORM``."""

    case: str
    norms: Sequence[Answer]
    clipped: Sequence[Answer]


def _normals(count: int, size: int, dtype: type[np.floating] = np.float32, by: float = 1.0) -> list[NDArray]:
    random = np.random.default_rng(_SEED)
    unit: type[np.float32 | np.float64] = np.float64 if dtype is np.float64 else np.float32
    return [np.multiply(x := random.standard_normal(size, dtype=unit), unit(by), out=x) for _ in range(count)]


def _units(count: int, size: int = 64) -> list[NDArray]:
    """Return bfloat16 leaves whose norm is 1, but for the rounding of their elements."""
    return [(x / np.linalg.norm(x)).astype(dtype_of("bfloat16")) for x in _normals(count, size)]


CASES = (
    Case("64 M normals, f32", lambda parts: _normals(1, _LARGE // parts)),
    Case("64 M × 0.1, f32", lambda parts: [np.full(_LARGE // parts, 0.1, np.float32)]),
    Case("1e20 × normals, f32", lambda _: _normals(16, 4096, by=1e20), quick=True),
    Case("1e-30 × normals, f32", lambda _: _normals(16, 4096, by=1e-30)),
    Case("1,000 of norm 1, bf16", lambda parts: _units(1000 // parts), quick=True),
    Case("4,000 of norm 1, bf16", lambda parts: _units(4000 // parts)),
    Case("[300] × 4, f16", lambda _: [np.full(4, 300.0, np.float16)], quick=True),
    Case("1 M normals, f64", lambda parts: _normals(16, 65536 // parts, np.float64)),
)


def measure(case: Case, implementations: Sequence[Implementation], *, shrink: bool) -> Accuracy:
    """Return the answers of all implementations to a case."""
    leaves = case.leaves(100 if shrink else 1)
    right = exact_norm(leaves)
    after = min(right, MAX_NORM)
    asked = {i.name for i in implementations if len(leaves) <= i.most_leaves}
    norms = [Answer(i.name, i.role, i.norm(leaves) if i.name in asked else None, right) for i in implementations]
    clipped = [
        Answer(i.name, i.role, _norm_after(i.clip, leaves) if i.name in asked else None, after)
        for i in implementations
        if i.clip is not None
    ]
    return Accuracy(case.name, norms, clipped)


def _norm_after(clip: Callable[[list[NDArray], float], list[NDArray]], leaves: list[NDArray]) -> float:
    return wide_norm(clip([x.copy() for x in leaves], MAX_NORM))
