"""What is known of dtypes: their names, largest and smallest numbers, precision and byte order, in any namespace."""

from functools import lru_cache

from gradclip._types import AnyArray, Namespace

LARGEST = {
    "float4_e2m1fn": 6.0,
    "float6_e2m3fn": 7.5,
    "float6_e3m2fn": 28.0,
    "float8_e3m4": 15.5,
    "float8_e4m3": 240.0,
    "float8_e4m3b11fnuz": 30.0,
    "float8_e4m3fn": 448.0,
    "float8_e4m3fnuz": 240.0,
    "float8_e5m2": 57344.0,
    "float8_e5m2fnuz": 57344.0,
    "float16": 65504.0,
    "bfloat16": float.fromhex("0x1.fep127"),
    "float32": float.fromhex("0x1.fffffep127"),
    "float64": float.fromhex("0x1.fffffffffffffp1023"),
}
"""The real dtypes that gradients may have, each with its largest finite value.

These are left out: float8_e8m0fnu, which has no sign and no zero; dtypes that pack two numbers into a byte; dtypes
wider than float64.
"""

COMPONENTS = {"complex32": "float16", "complex64": "float32", "complex128": "float64"}
"""The complex dtypes, each with the dtype of its real and imaginary parts."""

DOUBLE = frozenset({"float64", "complex128"})
"""The dtypes of double precision: there is no wider dtype to add their elements in."""

SMALLEST_NORMAL = {True: 2.0**-1022, False: 2.0**-126}
"""The smallest positive normal number: of float64 for True, of float32 for False. Its reciprocal is normal too."""

TRUSTED_SUM = {True: SMALLEST_NORMAL[True] / 2.0**-58, False: SMALLEST_NORMAL[False] / 2.0**-28}
"""A sum of powers in float64 (True) or float32 (False) is trusted if it is at least this times their number.

Then what the powers lost by underflow, less than the smallest normal number each, is at most 2^-58 (2^-28) of the sum.
"""


# typed=True: otherwise the cache compares dtypes of different namespaces, and some of them warn about that.
@lru_cache(maxsize=256, typed=True)
def dtype_name(dtype: object) -> str:
    """Return the bare name of a dtype or scalar type, such as ``"float32"``, where torch prints ``torch.float32``."""
    name = getattr(dtype, "name", None) or getattr(dtype, "__name__", None) or str(dtype)
    return str(name).rsplit(".", 1)[-1]


@lru_cache(maxsize=256, typed=True)
def is_real(dtype: object) -> bool:
    """Whether a dtype is real floating-point, including bfloat16 and narrower ones that the standard does not know."""
    return dtype_name(dtype) in LARGEST


@lru_cache(maxsize=256, typed=True)
def is_complex(dtype: object) -> bool:
    """Whether a dtype is complex."""
    return dtype_name(dtype) in COMPONENTS


@lru_cache(maxsize=256, typed=True)
def is_floating(dtype: object) -> bool:
    """Whether a dtype is real floating-point or complex: one that gradients may have."""
    return is_real(dtype) or is_complex(dtype)


@lru_cache(maxsize=256, typed=True)
def is_double(dtype: object) -> bool:
    """Whether a dtype has double precision, so that there is no wider dtype to add its elements in."""
    return dtype_name(dtype) in DOUBLE


@lru_cache(maxsize=256, typed=True)
def is_narrow(dtype: object) -> bool:
    """Whether a real dtype has less than 16 bits. Frameworks store such numbers, but have few operations for them."""
    return dtype_name(dtype).startswith(("float8_", "float6_", "float4_"))


def is_native(dtype: object) -> bool:
    """Whether a dtype has the machine's byte order. Only NumPy has dtypes of another one."""
    return getattr(dtype, "isnative", True) is True


def largest(dtype: object) -> float:
    """Return the largest finite value of a real dtype."""
    return LARGEST.get(dtype_name(dtype), float("inf"))


def has_infinity(dtype: object) -> bool:
    """Whether a real dtype can represent infinity. Those with "fn" (finite) in their name cannot."""
    return "fn" not in dtype_name(dtype)


def norm_dtype(xp: Namespace, x: AnyArray) -> AnyArray:
    """Return the dtype of the norm of ``x``: float64 for float64 and complex128, float32 for all others."""
    return xp.float64 if is_double(x.dtype) else xp.float32
