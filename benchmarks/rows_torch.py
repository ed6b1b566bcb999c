"""torch's rows: gradclip.backends.torch, torch.nn.utils, and one pass over the same memory."""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, clip_grad_value_, get_total_norm

from benchmarks import frameworks, least, machine, rows_torch_each, sets, steps_torch
from benchmarks.accuracy import Implementation
from benchmarks.exact import relative_error, wide_norm
from benchmarks.row import CLIPPED, UNCLIPPED, Budget, Contender, Row, Schedule, Setup, global_schedule
from benchmarks.sets import GradientSet, NDArray
from gradclip import _native
from gradclip._exchange import finder

PEER = "torch.nn.utils.clip_grad_norm_"
_ADAPTER = "gradclip.backends.torch"
_SMALL = 1 << 22
"""Below this many elements the floor uses one tensor, because many small ones would measure the time of calls."""

_OURS, _MISSING = frameworks.adapter("torch")
_BITS = {"bfloat16": (np.int16, torch.bfloat16)}


def to_torch(x: NDArray) -> Tensor:
    """Return a tensor on the same memory."""
    if x.dtype.name in _BITS:
        bits, dtype = _BITS[x.dtype.name]
        return torch.from_numpy(x.view(bits)).view(dtype)
    return torch.from_numpy(x)


def to_numpy(x: Tensor) -> NDArray:
    """Return an array with the same numbers; those of bfloat16 as float32."""
    return (x.float() if x.dtype == torch.bfloat16 else x).detach().numpy()


class Parameters:
    """Parameters with the gradients that all contenders work on, a copy of their first values, and their norm."""

    def __init__(self, gradients: GradientSet, dtype: str) -> None:
        leaves = sets.values(gradients, dtype)
        self.norm = wide_norm(leaves)
        self._kept = [to_torch(x) for x in leaves]
        self.grads = [x.clone() for x in self._kept]
        # The parameters' values are not used: all share one zero, which takes no memory.
        self.all = [torch.nn.Parameter(torch.zeros((), dtype=x.dtype).expand(x.shape)) for x in self.grads]
        for parameter, grad in zip(self.all, self.grads, strict=True):
            parameter.grad = grad

    def restore(self) -> None:
        """Write the gradients' first values again."""
        for x, kept in zip(self.grads, self._kept, strict=True):
            x.copy_(kept)

    def errors(self, norm: Tensor, max_norm: float) -> Mapping[str, float]:
        """Return the errors of a norm and of the gradients that were clipped by it."""
        after = wide_norm([to_numpy(x) for x in self.grads])
        return {
            "norm": relative_error(float(norm), self.norm),
            "result": relative_error(after, min(self.norm, max_norm)),
        }

    def same_bytes(self) -> list[Tensor]:
        """Return flat float32 tensors of the same nbytes: the gradients themselves, or one tensor if they are small."""
        flats = [_as_float32(x.reshape(-1)) for x in self.grads]
        return [torch.cat(flats)] if sum(x.numel() for x in flats) < _SMALL else flats


def _as_float32(flat: Tensor) -> Tensor:
    if flat.element_size() > 2:
        return flat
    return flat[: flat.numel() // 2 * 2].view(torch.float32)  # 16-bit numbers in pairs: only their bytes matter


def floors(parameters: Parameters, *, read: bool = True, write: bool = False) -> list[Contender]:
    """Return passes over the gradients' bytes: read for the norm, then read and written once the norm is known."""
    flats = parameters.same_bytes()
    reads: list[tuple[str, Callable[[Tensor], object]]] = [
        ("torch.dot", lambda x: torch.dot(x, x)),
        ("torch.sum", torch.sum),
    ]

    def run(one: Callable[[Tensor], object] | None, _: float) -> None:
        if one is not None:
            for x in flats:
                one(x)
        if write:
            for x in flats:
                x.mul_(1.0)

    if not read:
        return [Contender("mul_", "floor", partial(run, None))]
    then = ", then mul_" if write else ""
    return [Contender(f"{name}{then}", "floor", partial(run, one)) for name, one in reads]


SPELLINGS: Mapping[str, Callable[[list[torch.nn.Parameter]], tuple[Any, dict[str, Any]]]] = {
    "a Module": lambda params: (torch.nn.ParameterList(params), {}),
    "an Optimizer": lambda params: (torch.optim.SGD(params), {}),
    "named parameters": lambda params: ([(str(i), p) for i, p in enumerate(params)], {}),
    "eps=": lambda params: (params, {"eps": 1e-9}),
    "scale=": lambda params: (params, {"scale": torch.tensor(1.0)}),
}
"""Other ways to call our function than with a list of parameters: the first argument, and keyword arguments."""


def clip_in_place(
    gradients: GradientSet,
    case: str,
    dtype: str = "float32",
    *budgets: Budget,
    memory: bool = False,
    spelling: str = "",
) -> Row:
    """Return the row of clipping by global norm; ``spelling`` is one of `SPELLINGS`."""

    def build(chosen: GradientSet) -> Setup:
        p = Parameters(chosen, dtype)
        ours: Any = _OURS
        source, named = SPELLINGS[spelling](p.all) if spelling else (p.all, {})
        contenders = [
            Contender("gradclip.backends.torch", "ours", lambda most: ours.clip_grad_norm_(source, most, **named)),
            Contender(PEER, "peer", lambda most: clip_grad_norm_(p.all, most)),
            Contender("the same, foreach=False", "peer", lambda most: clip_grad_norm_(p.all, most, foreach=False)),
            *floors(p, write=case == CLIPPED),
        ]
        if _native.kernels() and finder(Tensor) and chosen.size < _SMALL:
            contenders.append(Contender(least.NAME, "peer", lambda most: least.clip_tensors_(p.all, most)))
        return Setup(contenders, global_schedule(p.norm, case), p.errors, p.restore)

    passes = (2, 1) if case == CLIPPED else (1, 0)
    name = f"clip_grad_norm_, {spelling}" if spelling else "clip_grad_norm_"
    return Row("torch", name, gradients, dtype, case, build, passes, budgets, _MISSING, memory)


def core_in_place(gradients: GradientSet, case: str) -> Row:
    """Return the row of the core's function on the gradients themselves, beside the adapter's."""

    def build(chosen: GradientSet) -> Setup:
        import gradclip

        p = Parameters(chosen, "float32")
        ours: Any = _OURS
        contenders = [
            Contender("gradclip", "ours", lambda most: gradclip.clip_by_global_norm_(p.grads, most)),
            Contender(_ADAPTER, "peer", lambda most: ours.clip_grad_norm_(p.all, most)),
        ]
        return Setup(contenders, global_schedule(p.norm, case), p.errors, p.restore)

    passes = (2, 1) if case == CLIPPED else (1, 0)
    name, budget = "clip_by_global_norm_ of the core", Budget(_ADAPTER, 1.5, "within")
    return Row("torch", name, gradients, "float32", case, build, passes, (budget,), _MISSING)


def norm_only(gradients: GradientSet, *budgets: Budget) -> Row:
    """Return the row of the norm alone."""

    def build(chosen: GradientSet) -> Setup:
        p = Parameters(chosen, "float32")
        ours: Any = _OURS
        contenders = [
            Contender("gradclip.backends.torch", "ours", lambda _: ours.get_total_norm(p.grads)),
            Contender("torch.nn.utils.get_total_norm", "peer", lambda _: get_total_norm(p.grads)),
            *floors(p),
        ]

        def check(norm: Tensor, _: float) -> Mapping[str, float]:
            return {"norm": relative_error(float(norm), p.norm)}

        return Setup(contenders, Schedule(math.inf), check)

    return Row("torch", "get_total_norm", gradients, "float32", "", build, (1, 0), budgets, _MISSING)


def by_value(gradients: GradientSet, case: str) -> Row:
    """Return the row of clipping by value."""

    def build(chosen: GradientSet) -> Setup:
        p = Parameters(chosen, "float32")
        ours: Any = _OURS
        largest = max(float(x.abs().max()) for x in p.grads)
        schedule = Schedule(largest / 4, 0.98) if case == CLIPPED else Schedule(largest * 2)
        right = wide_norm([to_numpy(x.clamp(-schedule.first, schedule.first)) for x in p.grads])
        contenders = [
            Contender("gradclip.backends.torch", "ours", lambda most: ours.clip_grad_value_(p.all, most)),
            Contender("torch.nn.utils.clip_grad_value_", "peer", lambda most: clip_grad_value_(p.all, most)),
            *floors(p, read=case != CLIPPED, write=case == CLIPPED),
        ]

        def check(_: object, __: float) -> Mapping[str, float]:
            return {"result": relative_error(wide_norm([to_numpy(x) for x in p.grads]), right)}

        return Setup(contenders, schedule, check, p.restore)

    passes = (1, 1) if case == CLIPPED else (1, 0)
    return Row("torch", "clip_grad_value_", gradients, "float32", case, build, passes, missing=_MISSING)


_AT_THE_FLOOR = Budget("floor", 1.05, "within")
"""At least 95 % of the speed of a plain loop in C over the same bytes."""


def rows() -> Iterable[Row]:
    """Return torch's rows."""
    small = {UNCLIPPED: 3.5, CLIPPED: 3.0}
    wanted = {sets.MLP: small, sets.MANY_SMALL: {UNCLIPPED: 8.0, CLIPPED: 6.0}}
    for gradients in sets.FIVE:
        for case in (UNCLIPPED, CLIPPED):
            budgets = [Budget(PEER, wanted[gradients][case])] if gradients in wanted else []
            large = gradients is sets.GPT2_SMALL
            budgets += [_AT_THE_FLOOR] if large else []
            yield clip_in_place(gradients, case, "float32", *budgets, memory=large and case == CLIPPED)
    for case in (UNCLIPPED, CLIPPED):
        for spelling in SPELLINGS:
            yield clip_in_place(sets.MLP, case, "float32", Budget(PEER, small[case]), spelling=spelling)
        yield clip_in_place(sets.MLP, case, "float64", Budget(PEER, small[case]))
        for dtype in ("bfloat16", "float16"):
            half = Budget(PEER, {UNCLIPPED: 3.0, CLIPPED: 1.4}[case])
            yield clip_in_place(sets.GPT2_SMALL, case, dtype, half, memory=case == CLIPPED and dtype == "bfloat16")
    for gradients in (sets.MLP, sets.MANY_SMALL, sets.GPT2_SMALL):
        for case in (UNCLIPPED, CLIPPED):
            yield core_in_place(gradients, case)
    yield norm_only(sets.ONE_LARGE, _AT_THE_FLOOR)
    for case in (UNCLIPPED, CLIPPED):
        yield by_value(sets.GPT2_SMALL, case)
    yield from rows_torch_each.rows()
    yield from steps_torch.rows()


def implementations() -> Iterable[Implementation]:
    """Return torch's part in the accuracy table; through our adapter where there is one, else through the core."""
    import gradclip

    def tensors(leaves: list[NDArray]) -> list[Tensor]:
        return [to_torch(x) for x in leaves]

    def clipped_by(clip: Callable[[list[Any], float], object]) -> Callable[[list[NDArray], float], list[NDArray]]:
        def run(leaves: list[NDArray], max_norm: float) -> list[NDArray]:
            parameters = [torch.nn.Parameter(torch.zeros_like(x)) for x in tensors(leaves)]
            for parameter, grad in zip(parameters, tensors(leaves), strict=True):
                parameter.grad = grad
            clip(parameters, max_norm)
            return [to_numpy(p.grad) for p in parameters if p.grad is not None]

        return run

    def of_tensors(norm: Callable[[list[Tensor]], Any]) -> Callable[[list[NDArray]], float]:
        return lambda leaves: float(norm(tensors(leaves)))

    def core(parameters: list[Any], max_norm: float) -> None:
        gradclip.clip_by_global_norm_([p.grad for p in parameters], max_norm)

    yield Implementation("gradclip, torch", "ours", of_tensors(gradclip.global_norm), clipped_by(core))
    if _OURS is not None:
        ours = clipped_by(_OURS.clip_grad_norm_)
        yield Implementation("gradclip.backends.torch", "ours", of_tensors(_OURS.get_total_norm), ours)
    peer = of_tensors(get_total_norm)
    yield Implementation("torch.nn.utils", "peer", peer, clipped_by(clip_grad_norm_))
    one = of_tensors(lambda leaves: torch.linalg.vector_norm(torch.cat([x.reshape(-1) for x in leaves])))
    yield Implementation("torch.linalg.vector_norm of all", "peer", one)


def versions() -> Mapping[str, str]:
    """Return torch's version, and how many threads it uses."""
    return {**machine.versions("torch"), "torch threads": str(torch.get_num_threads())}
