"""The mergeable partial norm: a pair (scale, total) that stands for scale · total^(1/p).

Partial norms of chunks, leaves, devices and ranks are all merged by the functions below. ``scale`` has the magnitude of
the gradients, so ``total`` neither overflows nor underflows. Merging is associative, so the norm does not depend on how
the gradients are spread over devices.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gradclip import _namespace as ns
from gradclip._calls import quiet
from gradclip._dtypes import SMALLEST_NORMAL, is_double
from gradclip._namespace import as_array, device, is_host, is_numpy, namespace, to_device
from gradclip._powers import rescale, root, safe_scale
from gradclip._types import AnyArray, AnyScalar, Namespace
from gradclip._words import a

_NUMBERS = 4
"""The numbers of a partial norm that processes send to each other: scale, total, order, and whether it is float64."""


@dataclass(frozen=True, slots=True)
class NormPartial:
    """The norm of a part of the gradients, in a form that can be merged with the norms of other parts.

    It stands for ``scale * total ** (1 / ord)``, or for ``scale * total`` if ``ord`` is inf. The two arrays have the
    same shape: 0-d for one norm, more for a batch of norms. To merge over processes, use `merged` or `to_array`.

    Parameters
    ----------
    scale : array
        Positive and finite, float64 (float32 on devices without float64).
    total : array
        The sum of ``|x / scale| ** ord``, of the same shape, dtype and device. NaN or inf if a gradient is.
    ord : float
        The order of the norm, positive or inf.
    dtype : dtype
        The dtype that `norm` returns: float64 if any leaf is float64 or complex128, else float32.

    See Also
    --------
    gradclip.norm_partial : computes one from a container of arrays.
    gradclip.clip_with_norm : clips by a norm that was merged elsewhere.

    References
    ----------
    .. [1] J. L. Blue, "A Portable Fortran Program to Find the Euclidean Norm of a Vector", ACM TOMS 4(1), 1978: the
       scaled sum of squares, generalised here to any order.
    """

    scale: AnyArray
    total: AnyArray
    ord: float
    dtype: AnyArray

    @quiet
    def merge(self, other: "NormPartial") -> "NormPartial":
        """Return the partial norm of both parts together, element by element, on this partial's device.

        Parameters
        ----------
        other : NormPartial
            The partial norm of another part. It has the same order, and a shape that broadcasts with this one's. One
            of NumPy's arrays, as of an empty container, can be merged with one of any namespace.

        Raises
        ------
        TypeError
            If ``other`` is not a NormPartial, or has arrays of another namespace, and neither is NumPy.
        ValueError
            If the orders differ.

        Examples
        --------
        >>> import numpy as np, gradclip
        >>> a = gradclip.norm_partial(np.array([3e300]))
        >>> b = gradclip.norm_partial(np.array([4e300]))
        >>> a.merge(b).norm()
        array(5.e+300)
        """
        _check_mergeable(self, other)
        one, two = _in_one_namespace(self, other)
        xp = namespace([one.total])
        where = device(one.total)
        t1, t2 = one.total, to_device(two.total, where)
        s1, s2 = _live(xp, one.scale, t1), _live(xp, to_device(two.scale, where), t2)
        scale = xp.where(s1 >= s2, s1, s2)
        t1, t2 = rescale(xp, t1, s1 / scale, one.ord), rescale(xp, t2, s2 / scale, one.ord)
        total = t1 + t2 if one.ord != math.inf else xp.where((t1 >= t2) | (t1 != t1), t1, t2)
        return NormPartial(scale, total, one.ord, one.dtype if is_double(one.dtype) else two.dtype)

    @quiet
    def norm(self) -> AnyArray:
        """Return the norm as a real array of ``dtype`` and of this partial's shape; inf where it is not representable.

        Examples
        --------
        >>> import numpy as np, gradclip
        >>> gradclip.norm_partial(np.array([3.0, 4.0])).norm()
        array(5.)
        """
        xp = namespace([self.total])
        return as_array(xp.astype(self.scale * root(xp, self.total, self.ord), self.dtype))

    def to_array(self) -> AnyArray:
        """Return the numbers that another process needs to merge this partial norm: an array of shape (4,).

        They are scale, total, order, and 1 if the norm is float64, else 0. The dtype is that of ``scale``. Send the
        array by any means, and make a partial norm of it again with `from_array`.

        Raises
        ------
        ValueError
            If this is a batch of norms.

        Examples
        --------
        >>> import numpy as np, gradclip
        >>> gradclip.norm_partial(np.array([3.0, 4.0])).to_array().shape
        (4,)
        """
        if self.total.ndim:
            raise ValueError(
                f"to_array() was called on a batch of norms, of shape {self.total.shape}, expected one norm; "
                "merge the batch, or send scale and total"
            )
        xp = namespace([self.total])
        rest = [xp.full_like(self.scale, self.ord), xp.full_like(self.scale, float(is_double(self.dtype)))]
        return xp.stack([self.scale, xp.astype(self.total, self.scale.dtype), *rest])

    @classmethod
    @quiet
    def from_array(cls, array: AnyArray, ord: float = 2.0) -> "NormPartial":
        """Return the partial norm of the numbers that `to_array` returned, or of several such rows merged in order.

        On a host, the norm is float64 if that of any partial is, else float32; elsewhere it has the array's dtype,
        because the numbers are not read.

        Parameters
        ----------
        array : array of shape (4,) or (number of partials, 4)
            What `to_array` returned in one process or, row by row, in several.
        ord : float
            The order of the norm, as it was passed to `norm_partial`.

        Raises
        ------
        ValueError
            If the shape differs; or, on a host, if the order of a partial does.

        Examples
        --------
        >>> import numpy as np, gradclip
        >>> rows = [gradclip.norm_partial(np.array([x])).to_array() for x in (3.0, 4.0)]
        >>> gradclip.NormPartial.from_array(np.stack(rows)).norm()
        array(5.)
        """
        if array.ndim not in (1, 2) or array.shape[-1] != _NUMBERS or 0 in array.shape:
            raise ValueError(
                f"from_array() got an array of shape {tuple(array.shape)}, expected ({_NUMBERS},) or "
                f"(number of partials, {_NUMBERS}); pass what to_array() returned, one row for each partial"
            )
        xp = namespace([array])
        rows, dtype = xp.reshape(array, (-1, _NUMBERS)), array.dtype
        if is_host(array):
            orders, doubles = ({float(row[i]) for row in rows} for i in (2, 3))
            if orders != {ord}:
                raise ValueError(
                    f"from_array() got partials of ord={sorted(orders)}, expected {ord}; make all with the same ord="
                )
            dtype = xp.float64 if 1.0 in doubles else xp.float32
        return merge_elements(cls(rows[:, 0], rows[:, 1], ord, dtype), axis=0)

    def merged(self, exchange: Callable[[AnyArray], AnyArray]) -> "NormPartial":
        """Return the partial norm of all processes together; each calls this with its own part.

        Parameters
        ----------
        exchange : callable
            Gets the array of `to_array` and returns those of all processes in one array, of shape
            (number of processes, 4), in the same order everywhere: an all-gather. Then all get the same bits.

        Raises
        ------
        ValueError
            If what ``exchange`` returns has another shape or, on a host, partials of another order.

        Examples
        --------
        >>> import numpy as np, gradclip
        >>> partial = gradclip.norm_partial(np.array([3.0, 4.0]))
        >>> round(float(partial.merged(lambda mine: np.stack([mine, mine])).norm()), 6)  # two processes, the same part
        7.071068
        """
        whole = type(self).from_array(exchange(self.to_array()), self.ord)
        return whole if is_host(whole.total) else replace(whole, dtype=self.dtype)


def beside(partial: NormPartial, value: AnyScalar) -> AnyScalar:
    """Return a number; if it is an array, on the device of a partial norm."""
    return value if isinstance(value, float) else to_device(value, device(partial.total))


def positive(loss_scale: AnyScalar) -> AnyScalar:
    """Return a loss scale, or NaN if it is not above 0. That of an array may not have been checked."""
    if isinstance(loss_scale, float):
        return loss_scale if loss_scale > 0 else math.nan
    xp = namespace([loss_scale])
    return xp.where(loss_scale > 0, loss_scale, xp.full_like(loss_scale, math.nan))


def merge_elements(partial: NormPartial, axis: int | None = None) -> NormPartial:
    """Return the merged partial norms of a batch, along one axis (which is removed) or of all; none may be empty."""
    xp = namespace([partial.total])
    scales = _live(xp, partial.scale, partial.total)
    scale = xp.max(scales, axis=axis)
    terms = rescale(xp, partial.total, scales / scale, partial.ord)
    total = xp.max(terms, axis=axis) if partial.ord == math.inf else xp.sum(terms, axis=axis)
    return NormPartial(scale, total, partial.ord, partial.dtype)


def remainder(whole: NormPartial, batch: NormPartial) -> NormPartial:
    """Return the partial norm of what is in ``whole`` but not in ``batch``, as a batch of one.

    Its error is a rounding error of ``whole``, so it serves to get ``whole`` again, not as a norm by itself.
    """
    xp = namespace([whole.total])
    total = whole.total
    if 0 not in batch.total.shape:
        here = merge_elements(batch)
        rest = total - rescale(xp, here.total, here.scale / whole.scale, whole.ord)
        total = xp.where(rest < 0, xp.zeros_like(rest), rest)
    return NormPartial(xp.reshape(whole.scale, (1,)), xp.reshape(total, (1,)), whole.ord, whole.dtype)


def stack(partials: Sequence[NormPartial]) -> NormPartial:
    """Return 0-d partial norms as one batch of shape (len(partials),), on the device of the first."""
    xp = namespace([partials[0].total])
    where = device(partials[0].total)
    scale = ns.stack_numbers(xp, [to_device(p.scale, where) for p in partials])
    total = ns.stack_numbers(xp, [to_device(p.total, where) for p in partials])
    dtype = next((p.dtype for p in partials if is_double(p.dtype)), partials[0].dtype)
    return NormPartial(scale, total, partials[0].ord, dtype)


def concat(first: NormPartial, second: NormPartial, axis: int) -> NormPartial:
    """Return two batches of partial norms, concatenated along ``axis``."""
    xp = namespace([first.total])
    scale = xp.concat([first.scale, second.scale], axis=axis)
    return NormPartial(scale, xp.concat([first.total, second.total], axis=axis), first.ord, first.dtype)


def from_norm(xp: Namespace, norm: AnyArray) -> NormPartial:
    """Return the partial norm for a known norm, a 0-d array of the accumulation dtype."""
    scale = safe_scale(xp, norm)
    return NormPartial(scale, norm / scale, math.inf, norm.dtype)


def _live(xp: Namespace, scale: AnyArray, total: AnyArray) -> AnyArray:
    """Return ``scale``, or the least scale where ``total`` is 0, so that zeros do not raise the scale of a merge."""
    return xp.where(total == 0, xp.full_like(scale, SMALLEST_NORMAL[is_double(scale.dtype)]), scale)


def _in_one_namespace(one: NormPartial, two: NormPartial) -> tuple[NormPartial, NormPartial]:
    """Return both; if one is NumPy's and the other is not, with arrays of the other's namespace, on its device."""
    here, there = (is_numpy(namespace([partial.total])) for partial in (one, two))
    if here == there:
        return one, two
    return (_like(two, one), two) if here else (one, _like(one, two))


def _like(model: NormPartial, partial: NormPartial) -> NormPartial:
    """Return a partial norm of NumPy's arrays with arrays of another's namespace and dtype, on its device."""
    xp, where = namespace([model.total]), device(model.total)
    scale, total = (xp.asarray(x, dtype=model.scale.dtype, device=where) for x in (partial.scale, partial.total))
    wide = is_double(partial.dtype) and not is_double(model.dtype)
    return NormPartial(scale, total, partial.ord, xp.float64 if wide else model.dtype)


def _check_mergeable(one: NormPartial, other: object) -> None:
    if not isinstance(other, NormPartial):
        raise TypeError(f"merge() got {a(type(other).__name__)}, expected a NormPartial; make one with norm_partial()")
    if one.ord != other.ord:
        raise ValueError(
            f"merge() got partials of ord={one.ord} and ord={other.ord}, expected the same order; "
            "make both with the same ord="
        )
