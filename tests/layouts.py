"""Every dtype, byte order and layout that NumPy has, and arrays of them for hypothesis to choose from."""

import tempfile
from pathlib import Path

import ml_dtypes
import numpy as np
from hypothesis import strategies as st

NAMES = ["f2", "f4", "f8", "c8", "c16"]
NARROW = [
    "bfloat16",
    "float8_e3m4",
    "float8_e4m3",
    "float8_e4m3b11fnuz",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
    "float6_e2m3fn",
    "float6_e3m2fn",
    "float4_e2m1fn",
]
DTYPES = [
    *(np.dtype(order + name) for order in "<>" for name in NAMES),
    *(np.dtype(getattr(ml_dtypes, name)).newbyteorder(order) for order in "<>" for name in NARROW),
    np.dtype("f8", metadata={"unit": "m"}),
]
REAL = [dtype for dtype in DTYPES if dtype.kind != "c"]
# Each layout is a function of values, and returns an array with them and the array in whose memory it lies.


def contiguous(values):
    out = values.copy()
    return out, out


def fortran(values):
    out = np.array(values, order="F")
    return out, out


def reverse(values):
    base = np.empty_like(values)
    out = base[(..., *[slice(None, None, -1)] * base.ndim)]
    out[...] = values
    return out, base


def strided(values):
    base = np.ones([2 * n + 1 for n in values.shape], values.dtype)
    out = base[(..., *[slice(1, None, 2)] * base.ndim)]
    out[...] = values
    return out, base


def transposed(values):
    base = np.empty(values.shape[::-1], values.dtype)
    out = base.T
    out[...] = values
    return out, base


def unaligned(values):
    base = np.ones(values.nbytes + 1, np.uint8)
    out = base[1:].view(values.dtype).reshape(values.shape)
    out[...] = values
    return out, base


def field(values):
    base = np.zeros(values.shape, np.dtype([("other", "u1"), ("gradient", values.dtype)]))
    out = base["gradient"]
    out[...] = values
    return out, base


def mapped(values):
    if not values.size:  # which NumPy cannot map
        return contiguous(values)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gradient"
        out = np.memmap(path, values.dtype, "w+", offset=1, shape=values.shape)
        out[...] = values
        return out, out


def mapped_for_reading(values):
    if not values.size:
        return read_only(values)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gradient"
        path.write_bytes(values.tobytes())
        out = np.memmap(path, values.dtype, "r", shape=values.shape)
        return out, out


def read_only(values):
    out = values.copy()
    out.flags.writeable = False
    return out, out


def broadcast(values):
    base = values.copy()
    return np.broadcast_to(base, (3, *base.shape)), base


WRITABLE = [contiguous, fortran, reverse, strided, transposed, unaligned, field, mapped]
LAYOUTS = [*WRITABLE, mapped_for_reading, read_only, broadcast]


def component(dtype):
    return dtype.type(0).real.dtype if dtype.kind == "c" else np.dtype(dtype.type)


def info(dtype):
    return ml_dtypes.finfo(component(dtype))


def is_double(dtype):
    return component(dtype) == np.float64


@st.composite
def arrays(draw, dtypes=DTYPES, layouts=LAYOUTS, lead=None):
    """An array with numbers about one magnitude, and the array in whose memory it lies."""
    dtype = draw(st.sampled_from(dtypes))
    shape = draw(st.sampled_from([(), (1,), (5,), (0,), (2, 3), (3, 0, 2), (2, 1, 4), (40, 3)]))
    shape = shape if lead is None else (lead, *shape[1:])
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    numbers = rng.uniform(0.25, 1.0, shape) * rng.choice([-1.0, 1.0, 0.0], shape, p=[0.4, 0.4, 0.2])
    numbers = numbers + 1j * rng.uniform(-1, 1, shape) if dtype.kind == "c" else numbers
    kind = info(dtype)
    magnitudes = [1.0, float(kind.max) * 0.9, float(kind.smallest_normal), float(kind.smallest_subnormal) * 8]
    scaled = numbers * draw(st.sampled_from(magnitudes if lead is None else [1.0]))
    return draw(st.sampled_from(layouts))(np.asarray(scaled).astype(dtype.type).astype(dtype))


def some(**options):
    return st.lists(arrays(**options), min_size=1, max_size=3)


def exactly(x):
    """The values of an array as float64 or complex128."""
    return np.array(x).astype(complex if x.dtype.kind == "c" else float)
