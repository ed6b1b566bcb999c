"""NumPy's rows: gradclip's core, the usual NumPy code, and one pass over the same memory."""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import numpy as np

import gradclip
from benchmarks import least, machine, sets
from benchmarks.accuracy import Implementation
from benchmarks.exact import relative_error, wide_norm
from benchmarks.peers_numpy import linalg_clip, linalg_clip_, linalg_norm
from benchmarks.row import CLIPPED, UNCLIPPED, Budget, Contender, Row, Schedule, Setup, global_schedule
from benchmarks.sets import GradientSet, NDArray
from gradclip import _native

LINALG = "np.linalg.norm a leaf, multiply"
BRANCH = "the same, multiply if needed"
_SMALL = 1 << 22
"""Below this many elements the floor uses one array, because many small ones would measure the time of calls."""


class Gradients:
    """The leaves that all contenders work on, a copy of their first values, and their norm."""

    def __init__(self, gradients: GradientSet, dtype: str) -> None:
        self.leaves = sets.values(gradients, dtype)
        self.norm = wide_norm(self.leaves)
        self._kept: list[NDArray] | None = None

    def restore(self) -> None:
        """Write the first values again. Their copy is made here, so that rows of memory do not include it."""
        if self._kept is None:
            self._kept = [x.copy() for x in self.leaves]
        for x, kept in zip(self.leaves, self._kept, strict=True):
            np.copyto(x, kept)

    def errors(self, norm: float, clipped: list[NDArray], max_norm: float) -> Mapping[str, float]:
        """Return the errors of a norm and of the leaves that were clipped by it."""
        after = relative_error(wide_norm(clipped), min(self.norm, max_norm))
        return {"norm": relative_error(norm, self.norm), "result": after}

    def same_bytes(self) -> list[NDArray]:
        """Return flat float32 or float64 arrays of the same nbytes: the leaves, or one array if they are small."""
        if sum(x.size for x in self.leaves) < _SMALL:
            return [np.concatenate([_as_float32(x.reshape(-1)) for x in self.leaves])]
        return [_as_float32(x.reshape(-1)) for x in self.leaves]


def _as_float32(flat: NDArray) -> NDArray:
    if flat.dtype.itemsize > 2:
        return flat
    return flat[: flat.size // 2 * 2].view(np.float32)  # 16-bit numbers in pairs: only their bytes matter


def floors(grads: Gradients, *, read: bool = True, write: bool = False) -> list[Contender]:
    """Return passes over the gradients' bytes: read for the norm, then read and written once the norm is known."""
    flats = grads.same_bytes()
    reads: list[tuple[str, Callable[[NDArray], object]]] = [
        ("np.dot", lambda x: np.dot(x, x)),
        ("np.vecdot", lambda x: np.vecdot(x, x)),
        ("np.sum", np.add.reduce),
    ]

    def run(one: Callable[[NDArray], object] | None, _: float) -> None:
        if one is not None:
            for x in flats:
                one(x)
        if write:
            for x in flats:
                np.multiply(x, x.dtype.type(1), out=x)

    if not read:
        return [Contender("multiply", "floor", partial(run, None))]
    then = ", then multiply" if write else ""
    return [Contender(f"{name}{then}", "floor", partial(run, one)) for name, one in reads]


def clip_in_place(
    gradients: GradientSet, case: str, dtype: str = "float32", *budgets: Budget, memory: bool = False
) -> Row:
    """Return the row of clipping by global norm in place."""

    def build(chosen: GradientSet) -> Setup:
        grads = Gradients(chosen, dtype)
        leaves = grads.leaves
        contenders = [
            Contender("gradclip", "ours", lambda most: gradclip.clip_by_global_norm_(leaves, most)),
            Contender(LINALG, "peer", lambda most: linalg_clip_(leaves, most)),
            Contender(BRANCH, "peer", lambda most: linalg_clip_(leaves, most, branch=True)),
            *floors(grads, write=case == CLIPPED),
        ]
        if _native.kernels() and chosen.size < _SMALL:
            contenders.append(Contender(least.NAME, "peer", lambda most: least.clip_arrays_(leaves, most)))

        def check(norm: object, most: float) -> Mapping[str, float]:
            return grads.errors(float(norm), leaves, most)  # type: ignore[arg-type]  # a 0-d array or a float

        return Setup(contenders, global_schedule(grads.norm, case), check, grads.restore)

    passes = (2, 1) if case == CLIPPED else (1, 0)
    return Row("NumPy", "clip_by_global_norm_", gradients, dtype, case, build, passes, budgets, memory=memory)


def clip_pure(gradients: GradientSet, case: str) -> Row:
    """Return the row of clipping by global norm into new arrays."""

    def build(chosen: GradientSet) -> Setup:
        grads = Gradients(chosen, "float32")
        leaves = grads.leaves
        contenders = [
            Contender("gradclip", "ours", lambda most: gradclip.clip_by_global_norm(leaves, most)),
            Contender("np.linalg.norm a leaf, g * factor", "peer", lambda most: linalg_clip(leaves, most)),
            Contender(BRANCH, "peer", lambda most: linalg_clip(leaves, most, branch=True)),
            *floors(grads, write=case == CLIPPED),
        ]

        def check(answer: tuple[list[NDArray], float], most: float) -> Mapping[str, float]:
            return grads.errors(float(answer[1]), answer[0], most)

        threshold = global_schedule(grads.norm, case).first
        return Setup(contenders, Schedule(threshold), check)

    passes = (2, 1) if case == CLIPPED else (1, 0)
    return Row("NumPy", "clip_by_global_norm", gradients, "float32", case, build, passes)


def norm_only(gradients: GradientSet, *budgets: Budget) -> Row:
    """Return the row of the norm alone."""

    def build(chosen: GradientSet) -> Setup:
        grads = Gradients(chosen, "float32")
        contenders = [
            Contender("gradclip", "ours", lambda _: gradclip.global_norm(grads.leaves)),
            Contender("np.linalg.norm a leaf", "peer", lambda _: linalg_norm(grads.leaves)),
            *floors(grads),
        ]

        def check(norm: object, _: float) -> Mapping[str, float]:
            return {"norm": relative_error(float(norm), grads.norm)}  # type: ignore[arg-type]  # as above

        return Setup(contenders, Schedule(math.inf), check)

    return Row("NumPy", "global_norm", gradients, "float32", "", build, (1, 0), budgets)


def leaf_norms(gradients: GradientSet) -> Row:
    """Return the row of each leaf's norm."""

    def build(chosen: GradientSet) -> Setup:
        grads = Gradients(chosen, "float32")
        right = [wide_norm([x]) for x in grads.leaves]
        contenders = [
            Contender("gradclip", "ours", lambda _: gradclip.leaf_norms(grads.leaves)),
            Contender("np.linalg.norm a leaf", "peer", lambda _: [np.linalg.norm(x) for x in grads.leaves]),
            *floors(grads),
        ]

        def check(norms: list[NDArray], _: float) -> Mapping[str, float]:
            return {"norm": max(relative_error(float(a), b) for a, b in zip(norms, right, strict=True))}

        return Setup(contenders, Schedule(math.inf), check)

    return Row("NumPy", "leaf_norms", gradients, "float32", "", build, (1, 0))


def by_value(gradients: GradientSet, case: str) -> Row:
    """Return the row of clipping by value in place."""

    def build(chosen: GradientSet) -> Setup:
        grads = Gradients(chosen, "float32")
        leaves = grads.leaves
        largest = max(float(np.max(np.abs(x))) for x in leaves)
        schedule = Schedule(largest / 4, 0.98) if case == CLIPPED else Schedule(largest * 2)
        right = wide_norm([np.clip(x, -schedule.first, schedule.first) for x in leaves])
        contenders = [
            Contender("gradclip", "ours", lambda most: gradclip.clip_by_value_(leaves, most)),
            Contender(
                "np.clip a leaf, out=leaf", "peer", lambda most: [np.clip(x, -most, most, out=x) for x in leaves]
            ),
            *floors(grads, read=case != CLIPPED, write=case == CLIPPED),
        ]

        def check(_: object, __: float) -> Mapping[str, float]:
            return {"result": relative_error(wide_norm(leaves), right)}

        return Setup(contenders, schedule, check, grads.restore)

    passes = (1, 1) if case == CLIPPED else (1, 0)
    return Row("NumPy", "clip_by_value_", gradients, "float32", case, build, passes)


def rows() -> Iterable[Row]:
    """Return NumPy's rows."""
    wanted = {UNCLIPPED: Budget(LINALG, 1.8), CLIPPED: Budget(LINALG, 0.97)}
    for gradients in sets.FIVE:
        for case, budget in wanted.items():
            gpt2 = gradients is sets.GPT2_SMALL
            budgets = {sets.GPT2_SMALL: [budget], sets.MLP: [Budget(BRANCH, 1.0)]}.get(gradients, [])
            yield clip_in_place(gradients, case, "float32", *budgets, memory=gpt2 and case == CLIPPED)
    yield norm_only(sets.ONE_LARGE, Budget("floor", 1.2, "within"))
    yield leaf_norms(sets.GPT2_SMALL)
    for row in (clip_pure, by_value):
        for case in wanted:
            yield row(sets.GPT2_SMALL, case)
    for dtype in ("float64", "float16", "bfloat16"):
        for case in wanted:
            yield clip_in_place(sets.RESNET50, case, dtype, memory=dtype == "bfloat16" and case == CLIPPED)


def implementations() -> Iterable[Implementation]:
    """Return NumPy's part in the accuracy table."""

    def linalg(leaves: list[NDArray], max_norm: float) -> list[NDArray]:
        with np.errstate(all="ignore"):
            linalg_clip_(leaves, max_norm)
        return leaves

    def quiet(leaves: list[NDArray]) -> float:
        with np.errstate(all="ignore"):
            return linalg_norm(leaves)

    def ours(leaves: list[NDArray], max_norm: float) -> list[NDArray]:
        gradclip.clip_by_global_norm_(leaves, max_norm)
        return leaves

    yield Implementation("gradclip, NumPy", "ours", lambda leaves: float(gradclip.global_norm(leaves)), ours)
    yield Implementation("np.linalg.norm a leaf", "peer", quiet, linalg)


def versions() -> Mapping[str, str]:
    """Return NumPy's version and that of the package that gives it bfloat16."""
    return machine.versions("numpy", "ml-dtypes", "gradclip")
