"""``Ops`` for CuPy: for each dtype one launch for partial norms and one for scaling, and one for the coefficient.

``ArrayOps`` computes the rare cases, on the device, too: norms along axes, complex leaves in orders other than 2, and
float8.
"""

import math
from collections.abc import Sequence
from functools import partial as bind
from typing import Any

import numpy as np

from gradclip._array_ops import ArrayOps
from gradclip._coefficient import Coefficient, is_shared
from gradclip._decision import Decision, Rule
from gradclip._dtypes import COMPONENTS, DOUBLE
from gradclip._partial import NormPartial
from gradclip._types import AnyArray, AnyScalar, Namespace
from gradclip.backends.cupy._places import Places
from gradclip.backends.cupy._result import PARTIAL_BYTES, RESULT_BYTES, Result, read_result
from gradclip.backends.cupy._runtime import Runtime, Uploaded
from gradclip.backends.cupy._table import ANY_DTYPE, CODES

_KERNELS = {math.inf: "partials_inf", 1.0: "partials_one", 2.0: "partials_two"}


class CupyOps(ArrayOps):
    """The operations of ``Ops`` for CuPy arrays, on the current streams of their devices.

    Parameters
    ----------
    xp : namespace
        The namespace of the arrays.
    runtime : Runtime
        The GPUs.
    arrays, places : list of arrays, Places
        Leaves and their places in memory. If an operation gets this same list, it uses these places.
    """

    def __init__(self, xp: Namespace, runtime: Runtime, arrays: Sequence[AnyArray], places: Places) -> None:
        super().__init__(xp)
        self.runtime = runtime
        self._arrays = arrays
        self._known = places

    def decide(self, leaves: Sequence[AnyArray], rule: Rule) -> Decision:
        """Return the norm of all leaves laid end to end and the coefficient, both from one kernel."""
        if not self._suits(leaves, rule.ord):
            return super().decide(leaves, rule)
        return self._result(leaves, rule).decision

    def partial(self, leaves: Sequence[AnyArray], ord: float) -> NormPartial:
        """Return the partial norm of all leaves laid end to end."""
        if not self._suits(leaves, ord):
            return super().partial(leaves, ord)
        return self._result(leaves, Rule(None, ord)).partial

    def partials(self, leaves: Sequence[AnyArray], ord: float) -> NormPartial:
        """Return one partial norm for each leaf."""
        if not self._suits(leaves, ord):
            return super().partials(leaves, ord)
        places, n = self._places(leaves), len(leaves)
        groups = places.by_device
        pairs = [self._each(device, _chosen(leaves, chosen), ord) for device, chosen in groups]
        with self.runtime.on(groups[0][0]):
            found = pairs[0] if len(groups) == 1 else self._gather(pairs, groups, n)
            scale, total = (self.runtime.view(found, 8 * k, np.float64, (2 * n - k,))[::2] for k in (0, 1))
        return NormPartial(scale, total, ord, _norm_dtype(places))

    def scale(self, leaves: Sequence[AnyArray], coefficients: Sequence[Coefficient]) -> list[AnyArray]:
        """Return each leaf times its coefficient."""
        if not self._scales(leaves, coefficients):
            return super().scale(leaves, coefficients)
        out = self._like(leaves)
        self._multiply(leaves, out, coefficients)
        return out

    def scale_(self, leaves: Sequence[AnyArray], coefficients: Sequence[Coefficient]) -> None:
        """Multiply each leaf by its coefficient in place. Leaves that do not change are not written."""
        if self._scales(leaves, coefficients):
            self._multiply(leaves, leaves, coefficients)
        else:
            super().scale_(leaves, coefficients)

    def clamp(self, leaves: Sequence[AnyArray], low: AnyScalar, high: AnyScalar) -> list[AnyArray]:
        """Return each leaf with its elements limited to the bounds."""
        if not self._suits(leaves):
            return super().clamp(leaves, low, high)
        out = self._like(leaves)
        self._clamp(leaves, out, low, high)
        return out

    def clamp_(self, leaves: Sequence[AnyArray], low: AnyScalar, high: AnyScalar) -> None:
        """Limit each leaf's elements to the bounds in place. Elements within the bounds are not written."""
        if self._suits(leaves):
            self._clamp(leaves, leaves, low, high)
        else:
            super().clamp_(leaves, low, high)

    def _places(self, arrays: Sequence[AnyArray]) -> Places:
        return self._known if arrays is self._arrays else self.runtime.places(arrays)

    def _suits(self, leaves: Sequence[AnyArray], ord: float = 2.0) -> bool:
        """Whether there are kernels for the dtypes of leaves and this order of norm."""
        dtypes = self._places(leaves).dtypes
        return dtypes <= CODES.keys() and (ord == 2 or not dtypes & COMPONENTS.keys())

    def _address(self, x: AnyArray) -> int:
        return self.runtime.places([x]).items[0].address

    def _partials_in(self, memory: AnyArray, first: int, count: int) -> AnyArray:
        """Return ``count`` partial norms in memory from number ``first`` on, as bytes."""
        return self.runtime.view(memory, first * PARTIAL_BYTES, np.uint8, (count * PARTIAL_BYTES,))

    def _scales(self, leaves: Sequence[AnyArray], coefficients: Sequence[Coefficient]) -> bool:
        return self._suits(leaves) and all(c.factor.ndim == 0 for c in coefficients)

    def _result(self, leaves: Sequence[AnyArray], rule: Rule) -> Result:
        """Return the partial norm, norm and coefficient of all leaves, on the first leaf's device."""
        places = self._places(leaves)
        (first, mine), *others = places.by_device
        elsewhere = [self._merged(device, _chosen(leaves, theirs), rule.ord) for device, theirs in others]
        with self.runtime.on(first):
            parts, count, _ = self._parts(_chosen(leaves, mine), rule.ord, len(elsewhere))
            for i, part in enumerate(elsewhere):
                self.runtime.copy(part, self._partials_in(parts, count + i, 1))
            return self._finish(first, parts, count + len(elsewhere), _norm_dtype(places), rule)

    def _parts(self, leaves: Sequence[AnyArray], ord: float, more: int = 0) -> tuple[AnyArray, int, Uploaded]:
        """Return the partial norms of all pieces of leaves (with space for ``more``), their count, and the table."""
        places = self._places(leaves)
        uploaded = self.runtime.table(places, places)
        count = len(uploaded.table.pieces)
        parts = self.runtime.scratch(PARTIAL_BYTES * max(1, count + more))
        address, name = self._address(parts), _KERNELS.get(ord, "partials_any")
        for group in uploaded.table.groups:
            out = address + group.begin * PARTIAL_BYTES
            self.runtime.launch(name, group.code, group.blocks, uploaded.pieces_at(group), out, float(ord))
        return parts, count, uploaded

    def _each(self, device: int, leaves: Sequence[AnyArray], ord: float) -> AnyArray:
        """Return one partial norm for each leaf of one device, in one array."""
        with self.runtime.on(device):
            parts, _, uploaded = self._parts(leaves, ord)
            out = self.runtime.scratch(PARTIAL_BYTES * len(leaves))
            ranges = uploaded.address + uploaded.table.ranges_at
            addresses = self._address(parts), ranges, self._address(out)
            self.runtime.launch("merge", ANY_DTYPE, len(leaves), *addresses, float(ord))
            return out

    def _merged(self, device: int, leaves: Sequence[AnyArray], ord: float) -> AnyArray:
        """Return the partial norm of all leaves on a device other than the first."""
        with self.runtime.on(device):
            parts, count, _ = self._parts(leaves, ord)
            return self._partials_in(self._finish(device, parts, count, np.float64, Rule(None, ord)).memory, 0, 1)

    def _gather(self, pairs: Sequence[AnyArray], groups: Sequence[tuple[int, list[int]]], count: int) -> AnyArray:
        """Copy the partial norms of the leaves of all devices to the current device, in the order of the leaves."""
        found = self.runtime.scratch(PARTIAL_BYTES * count)
        for part, (_, chosen) in zip(pairs, groups, strict=True):
            for k, place in enumerate(chosen):
                self.runtime.copy(self._partials_in(part, k, 1), self._partials_in(found, place, 1))
        return found

    def _finish(self, device: int, parts: AnyArray, count: int, dtype: Any, rule: Rule) -> Result:
        """Merge ``count`` partial norms, and return the result with its norm and the coefficient, from one launch."""
        memory = self.runtime.scratch(RESULT_BYTES)
        given, numbers = self._numbers(rule.numbers(), device)
        where = 0 if numbers is None else self._address(numbers)
        zero = np.int32(rule.zero)
        self.runtime.launch(
            "finish", ANY_DTYPE, 1, self._address(parts), count, rule.ord, *given, where, zero, self._address(memory)
        )
        return read_result(memory, bind(self.runtime.view, memory), dtype, rule)

    def _numbers(self, numbers: Sequence[AnyScalar], device: int) -> tuple[Sequence[float], AnyArray | None]:
        """Return numbers as arguments for a kernel, or all in one array on the current device if one is an array."""
        if all(isinstance(x, float) for x in numbers):
            return numbers, None
        memory = self.runtime.scratch(8 * len(numbers))
        for i, x in enumerate(numbers):
            slot = self.runtime.view(memory, 8 * i, np.float64)
            slot[...] = x if isinstance(x, float) else self._on(device, x)
        return [0.0] * len(numbers), memory

    def _on(self, device: int, x: AnyArray) -> AnyArray:
        """Return a small array on the current device, ``device``; it is copied from another one."""
        if self.runtime.places([x]).items[0].device == device:
            return x
        here = self.runtime.kept(self.xp.empty_like(x))
        self.runtime.copy(x, here)
        return here

    def _like(self, leaves: Sequence[AnyArray]) -> list[AnyArray]:
        """Return uninitialised arrays, each like a leaf and on its device."""
        out: list[Any] = [None] * len(leaves)
        for device, chosen in self._places(leaves).by_device:
            with self.runtime.on(device):
                for i in chosen:
                    out[i] = self.xp.empty_like(leaves[i])
        return out

    def _launch(
        self, name: str, leaves: Sequence[AnyArray], out: Sequence[AnyArray], chosen: Sequence[int], *arguments: Any
    ) -> None:
        """Start a kernel that writes the chosen leaves, all of the current device, to ``out``: once for each dtype."""
        sources = self._places(_chosen(leaves, chosen))
        targets = sources if out is leaves else self.runtime.places(_chosen(out, chosen))
        uploaded = self.runtime.table(sources, targets)
        for group in uploaded.table.groups:
            self.runtime.launch(name, group.code, group.blocks, uploaded.pieces_at(group), *arguments)

    def _multiply(
        self, leaves: Sequence[AnyArray], out: Sequence[AnyArray], coefficients: Sequence[Coefficient]
    ) -> None:
        one = is_shared(coefficients)
        for device, chosen in self._places(leaves).by_device:
            with self.runtime.on(device):
                parts = self._batch(coefficients[:1] if one else _chosen(coefficients, chosen), device)
                addresses = [0 if part is None else self._address(part) for part in parts]
                self._launch("scale", leaves, out, chosen, *addresses, np.int32(not one))

    def _batch(self, coefficients: Sequence[Coefficient], device: int) -> list[AnyArray | None]:
        """Return divisors, factors, ``changed`` and ``zeroed`` of coefficients as four arrays on the current device."""
        number, flag = self.xp.float64, self.xp.bool
        kinds = (("divisor", number), ("factor", number), ("changed", flag), ("zeroed", flag))
        return [self._joined([getattr(c, name) for c in coefficients], dtype, device) for name, dtype in kinds]

    def _joined(self, parts: list[AnyArray | None], dtype: Any, device: int) -> AnyArray | None:
        if parts[0] is None:
            return None
        arrays = [self.xp.asarray(part) for part in parts]
        whole = arrays[0] if len(parts) == 1 else self._base_of(arrays)
        if whole is None:
            whole = self.runtime.kept(self.xp.stack([self._on(device, part) for part in arrays]))
        return self.runtime.kept(self.xp.astype(self._on(device, whole), dtype, copy=False))

    def _base_of(self, parts: Sequence[AnyArray]) -> AnyArray | None:
        """Return the batch whose elements these 0-d arrays are, in order, so that no copy is needed; else None."""
        base = getattr(parts[0], "base", None)
        if base is None or base.shape != (len(parts),) or not base.flags.c_contiguous:
            return None
        first = self._address(base)
        addresses = [place.address for place in self.runtime.places(parts).items]
        return base if addresses == [first + i * base.itemsize for i in range(len(parts))] else None

    def _clamp(self, leaves: Sequence[AnyArray], out: Sequence[AnyArray], low: AnyScalar, high: AnyScalar) -> None:
        for device, chosen in self._places(leaves).by_device:
            with self.runtime.on(device):
                given, bounds = self._numbers((low, high), device)
                address = 0 if bounds is None else self._address(bounds)
                self._launch("clamp", leaves, out, chosen, *given, address)


def _norm_dtype(places: Places) -> Any:
    return np.float64 if places.dtypes & DOUBLE else np.float32


def _chosen(values: Sequence[Any], which: Sequence[int]) -> Sequence[Any]:
    """Return the values at these positions; the same sequence if these are all positions."""
    return values if len(which) == len(values) else [values[i] for i in which]
