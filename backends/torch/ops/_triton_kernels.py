# type: ignore  # what triton.jit compiles is not typed Python: a constexpr comes as a number, a pointer as an address
"""The kernels, in Triton's language. They do the same as backends/cupy/kernels.cu, which has more comments."""

import triton
import triton.language as tl

from gradclip._dtypes import SMALLEST_NORMAL, TRUSTED_SUM

SMALLEST = tl.constexpr(SMALLEST_NORMAL[True])
LARGEST = tl.constexpr(1 / SMALLEST_NORMAL[True])
TRUSTED_IN_FLOAT32 = tl.constexpr(TRUSTED_SUM[False])
TRUSTED_IN_FLOAT64 = tl.constexpr(TRUSTED_SUM[True])


@triton.jit
def _read(x, start, count, WIDE: tl.constexpr, BLOCK: tl.constexpr, WHOLE: tl.constexpr):  # noqa: N803
    """Return the absolute values of BLOCK elements. WHOLE reads without a mask, so that accesses have 16 bytes."""
    lanes = start + tl.arange(0, BLOCK)
    part = tl.load(x + lanes) if WHOLE else tl.load(x + lanes, mask=lanes < count, other=0.0)
    return tl.abs(part.to(WIDE))


@triton.jit
def _kahan(value, lost, part, ORDER: tl.constexpr):  # noqa: N803
    """Return a float32 sum with ``part`` added, and the rounding error that is yet to be subtracted."""
    term = (part * part if ORDER == 2 else part) - lost
    after = value + term
    return after, (after - value) - term


@triton.jit
def _add(value, part, p, ORDER: tl.constexpr):  # noqa: N803
    """Return a sum of powers, or the maximum for ORDER 0, with ``part`` added."""
    if ORDER == 0:
        return tl.where((part > value) | (part != part), part, value)  # NaN stays, because no number is greater
    if ORDER == 3:
        return value + tl.where(part == 0, 0.0, tl.exp(p * tl.log(part)))
    return value + (part * part if ORDER == 2 else part)


@triton.jit
def _number(bits):
    """Return the float64 with these bits. It is passed as bits, because Triton passes Python floats as float32."""
    return bits.to(tl.int64).to(tl.float64, bitcast=True)


@triton.jit
def _sum_of(
    x, count, scale, p, ORDER: tl.constexpr, PAIRS: tl.constexpr, SCALED: tl.constexpr, BLOCK: tl.constexpr  # noqa: N803
):  # fmt: skip
    """Return the sum of |x|^ORDER in float64, or of |x / scale|^ORDER; for ORDER 0, the maximum, for 3, of |x|^p."""
    whole = count // BLOCK * BLOCK
    if PAIRS:
        total = tl.zeros([BLOCK], tl.float32)
        lost = tl.zeros([BLOCK], tl.float32)
        for start in range(0, whole, BLOCK):
            total, lost = _kahan(total, lost, _read(x, start, count, tl.float32, BLOCK, True), ORDER)
        if whole < count:
            total, lost = _kahan(total, lost, _read(x, whole, count, tl.float32, BLOCK, False), ORDER)
        return tl.sum(total.to(tl.float64) - lost.to(tl.float64))
    value = tl.zeros([BLOCK], tl.float64)
    for start in range(0, whole, BLOCK):
        part = _read(x, start, count, tl.float64, BLOCK, True)
        value = _add(value, part / scale if SCALED else part, p, ORDER)
    if whole < count:
        part = _read(x, whole, count, tl.float64, BLOCK, False)
        value = _add(value, part / scale if SCALED else part, p, ORDER)
    if ORDER == 0:
        unknown = tl.max((value != value).to(tl.int32))
        return tl.where(unknown > 0, float("nan"), tl.max(tl.where(value != value, 0.0, value)))
    return tl.sum(value)


@triton.jit
def _safe(largest):
    """Return what elements can be divided by: never 0, inf or NaN, with a reciprocal that is in range too."""
    return tl.where(largest < SMALLEST, SMALLEST, tl.where(largest <= LARGEST, largest, LARGEST))


@triton.jit
def _piece(row, TYPE: tl.constexpr, ALIGNED: tl.constexpr):  # noqa: N803
    """Return the address and the number of elements of a piece, given its row in the table."""
    x = tl.load(row).to(tl.pointer_type(TYPE))
    if ALIGNED:
        x = tl.multiple_of(x, 16)
    return x, tl.load(row + 1).to(tl.int32)


@triton.jit(do_not_specialize=["p_bits"])
def partials_kernel(
    pieces, out, p_bits,
    ORDER: tl.constexpr, TYPE: tl.constexpr, PAIRS: tl.constexpr, ALIGNED: tl.constexpr, BLOCK: tl.constexpr,  # noqa: N803
):  # fmt: skip
    """Write the partial norm of one piece: its scale and its total."""
    me = tl.program_id(0)
    x, count = _piece(pieces + 3 * me, TYPE, ALIGNED)
    scale = tl.full([], 1.0, tl.float64)
    p = _number(p_bits)
    if ORDER == 0:
        largest = _sum_of(x, count, scale, p, 0, False, False, BLOCK)
        scale = _safe(largest)
        total = largest / scale
    else:
        total = _sum_of(x, count, scale, p, ORDER, PAIRS, False, BLOCK)
        if PAIRS:  # noqa: SIM102  # PAIRS is known when compiled, the next condition when run
            if (total - total != 0) | (total < count.to(tl.float64) * TRUSTED_IN_FLOAT32):
                total = _sum_of(x, count, scale, p, ORDER, False, False, BLOCK)
        if tl.float64 == TYPE:  # noqa: SIM102
            if (total - total != 0) | (total < count.to(tl.float64) * TRUSTED_IN_FLOAT64):
                scale = _safe(_sum_of(x, count, scale, p, 0, False, False, BLOCK))
                total = _sum_of(x, count, scale, p, ORDER, False, True, BLOCK)
    tl.store(out + 2 * me, scale)
    tl.store(out + 2 * me + 1, total)


@triton.jit
def _merge(parts, begin, count, ORDER: tl.constexpr, BLOCK: tl.constexpr):  # noqa: N803
    """Return the scale and the total of merged partial norms. Parts that are zero do not influence the scale."""
    lanes = tl.arange(0, BLOCK)
    scales = tl.zeros([BLOCK], tl.float64)
    for start in range(0, count, BLOCK):
        at = parts + 2 * (begin + start + lanes)
        mask = start + lanes < count
        total = tl.load(at + 1, mask=mask, other=0.0)
        scales = tl.maximum(scales, tl.where(total != 0, tl.load(at, mask=mask, other=0.0), 0.0))
    scale = tl.max(scales)
    scale = tl.where(scale > 0, scale, 1.0)
    sums = tl.zeros([BLOCK], tl.float64)
    unknown = tl.zeros([BLOCK], tl.int32)
    for start in range(0, count, BLOCK):
        at = parts + 2 * (begin + start + lanes)
        mask = start + lanes < count
        total = tl.load(at + 1, mask=mask, other=0.0)
        ratio = tl.where(total != 0, tl.load(at, mask=mask, other=1.0), 1.0) / scale
        power = ratio * ratio if ORDER == 2 else ratio
        term = tl.where((total - total == 0) & (total != 0), total * power, total)
        unknown += (term != term).to(tl.int32)
        sums = tl.where(term > sums, term, sums) if ORDER == 0 else sums + term
    whole = tl.max(sums) if ORDER == 0 else tl.sum(sums)
    return scale, tl.where(tl.max(unknown) > 0, float("nan"), whole)


@triton.jit
def merge_kernel(parts, ranges, out, ORDER: tl.constexpr, BLOCK: tl.constexpr):  # noqa: N803
    """Merge the partial norms of one tensor's pieces."""
    me = tl.program_id(0)
    begin = tl.load(ranges + 2 * me)
    count = (tl.load(ranges + 2 * me + 1) - begin).to(tl.int32)
    scale, total = _merge(parts, begin, count, ORDER, BLOCK)
    tl.store(out + 2 * me, scale)
    tl.store(out + 2 * me + 1, total)


@triton.jit(do_not_specialize=["count", "p_bits", "most_bits", "eps_bits", "loss_bits"])
def finish_kernel(
    parts, count, numbers, p_bits, most_bits, eps_bits, loss_bits, result, norm, flags,
    ORDER: tl.constexpr, GIVEN: tl.constexpr, ZERO: tl.constexpr, BLOCK: tl.constexpr,  # noqa: N803
):  # fmt: skip
    """Merge all partial norms; compute the norm and the coefficient, as `coefficient` in gradclip/_coefficient.py."""
    scale, total = _merge(parts, 0, count, ORDER, BLOCK)
    if GIVEN:  # on the device
        most, eps, loss = tl.load(numbers), tl.load(numbers + 1), tl.load(numbers + 2)
        most, eps = tl.where(most < 0, 0.0, most), tl.where(eps < 0, 0.0, eps)  # the host did not check them; NaN stays
        loss = tl.where(loss > 0, loss, float("nan"))
    else:
        most, eps, loss = _number(most_bits), _number(eps_bits), _number(loss_bits)
    root = total
    if ORDER == 2:
        root = tl.sqrt(total)
    if ORDER == 3:
        root = tl.where(total == 0, 0.0, tl.exp(tl.log(total) / _number(p_bits)))
    unscaled = scale / loss * root
    below = unscaled + eps <= most  # false for NaN, so that NaN spreads
    clipped = (below == 0) & (most != float("inf"))
    unknown = (total - total) != 0
    tl.store(result, scale)
    tl.store(result + 1, total)
    tl.store(result + 2, tl.where(clipped, scale, 1.0))
    tl.store(result + 3, tl.where(clipped, most / (root + eps * loss / scale), 1.0 / loss))
    tl.store(norm, unscaled.to(norm.dtype.element_ty))
    tl.store(flags, clipped | (loss != 1.0) | unknown if ZERO else clipped | (loss != 1.0))
    tl.store(flags + 1, unknown if ZERO else False)


@triton.jit
def scale_kernel(
    pieces, divisors, factors, changed, zeroed, each,
    ZERO: tl.constexpr, TYPE: tl.constexpr, ALIGNED: tl.constexpr, BLOCK: tl.constexpr,  # noqa: N803
):  # fmt: skip
    """Multiply one piece; return at once if its tensor does not change."""
    me = tl.program_id(0)
    which = tl.load(pieces + 3 * me + 2) * each
    if tl.load(changed + which):
        x, count = _piece(pieces + 3 * me, TYPE, ALIGNED)
        divisor = tl.load(divisors + which)
        factor = tl.load(factors + which)
        both = factor / divisor
        single = (both >= SMALLEST) & (both <= LARGEST)
        first = tl.where(single, both, 1.0 / divisor)  # in two steps if one number cannot hold it
        second = tl.where(single, 1.0, factor)
        zero = tl.load(zeroed + which) != 0 if ZERO else False
        whole = count // BLOCK * BLOCK
        for start in range(0, whole, BLOCK):
            _times(x, start, count, first, second, zero, TYPE, BLOCK, True)
        if whole < count:
            _times(x, whole, count, first, second, zero, TYPE, BLOCK, False)


@triton.jit
def _times(
    x, start, count, first, second, zero, TYPE: tl.constexpr, BLOCK: tl.constexpr, WHOLE: tl.constexpr  # noqa: N803
):  # fmt: skip
    lanes = start + tl.arange(0, BLOCK)
    part = tl.load(x + lanes) if WHOLE else tl.load(x + lanes, mask=lanes < count, other=0.0)
    value = tl.where(zero, 0.0, part.to(tl.float64) * first * second)
    if tl.bfloat16 == TYPE or tl.float16 == TYPE:  # noqa: SIM108  # only one branch is compiled
        result = value.to(tl.float32).to(TYPE)
    else:
        result = value.to(TYPE)
    if WHOLE:
        tl.store(x + lanes, result)
    else:
        tl.store(x + lanes, result, mask=lanes < count)


@triton.jit(do_not_specialize=["low_bits", "high_bits"])
def clamp_kernel(
    pieces, low_bits, high_bits,
    TYPE: tl.constexpr, ALIGNED: tl.constexpr, BLOCK: tl.constexpr,  # noqa: N803
):  # fmt: skip
    """Move the elements of one piece into the bounds; write only those that are outside."""
    me = tl.program_id(0)
    x, count = _piece(pieces + 3 * me, TYPE, ALIGNED)
    low, high = _number(low_bits), _number(high_bits)
    for start in range(0, count, BLOCK):
        lanes = start + tl.arange(0, BLOCK)
        value = tl.load(x + lanes, mask=lanes < count, other=0.0).to(tl.float64)
        below, above = value < low, value > high  # NaN is neither
        bound = tl.where(below, low, high)
        if tl.bfloat16 == TYPE or tl.float16 == TYPE:
            bound = bound.to(tl.float32)
        tl.store(x + lanes, bound.to(TYPE), mask=(below | above) & (lanes < count))
