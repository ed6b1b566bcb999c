"""What the suite needs to know about a namespace or an adapter, and how it finds this out for an unknown one."""

import contextlib
import importlib
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeAlias

import numpy as np

from gradclip.conformance.oracles import Values

Array: TypeAlias = Any

DTYPES = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")
"""The dtypes with which the contract is tested, if a target has them."""


class Target(Protocol):
    """The functions under test, and how to make and read their arrays exactly.

    Values are passed as NumPy arrays of float64 or complex128, which represent all numbers of the other dtypes.
    ``make`` gets only values that its dtype represents, and ``read`` must not round. A target has no tolerance of its
    own: what it cannot do is excused in its xfail file, by name and with a reason.

    Parameters
    ----------
    name : str
        The name in reports and in the names of the tests, such as ``"jax.numpy[jit]"``.
    api : object
        Has gradclip's public functions as attributes; for an adapter, those that it offers.
    dtypes : sequence of str
        Those of `DTYPES` that the target has.
    traits : set of str
        What arrays and functions can do:

        - "eager": values can be read at any time, so that a call can raise errors about values.
        - "host": to read values does not wait for a device.
        - "deferred": values are computed when they are read, which the target refuses outside of ``asking``.
        - "jit": ``run`` compiles, so that the functions do not know any value.
        - "writable": arrays can be written in place. "views": basic slices share memory.
        - "shares": ``share`` works. "grad": ``gradient`` works. "complex": there is complex64.
        - "quick": a call takes milliseconds, so that many examples can be tried.
        - "large": tens of millions of elements take no more than seconds.
        - "numpy", "torch", "jax", "ndonnx": the arrays are those of that framework.
    cases : int or None
        How many cases of a parametrised test run unless ``--every`` is given: for targets that compile each case.
    """

    name: str
    api: Any
    dtypes: tuple[str, ...]
    traits: frozenset[str]
    cases: int | None

    def make(self, values: Values, dtype: str) -> Array:
        """Return an array of these values: a copy, writable if the target's arrays are."""
        ...

    def read(self, x: Array) -> Values:
        """Return the values of an array: float64 or complex128, without rounding; integers as int64."""
        ...

    def read_all(self, xs: Sequence[Array]) -> list[Values]:
        """Return the values of several arrays."""
        ...

    def dtype(self, x: Array) -> str:
        """Return the bare name of an array's dtype, such as ``"bfloat16"``."""
        ...

    def transposed(self, x: Array) -> Array:
        """Return a view with the axes reversed, with the trait "views"."""
        ...

    def broadcast(self, x: Array, shape: tuple[int, ...]) -> Array:
        """Return an array that shows ``x`` in a larger shape, as a view where there are views."""
        ...

    def share(self, values: Values) -> Array:
        """Return an array in the memory of a NumPy array, with the trait "shares"."""
        ...

    def compiled(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``fn``, or a function that compiles it once for all arguments of a structure, without their values."""
        ...

    def run(self, fn: Callable[..., Any], *trees: Any) -> Any:
        """Return ``compiled(fn)(*trees)``."""
        ...

    def gradient(self, fn: Callable[[Array], Array], x: Array) -> Array:
        """Return the derivative of a function to 0-d arrays, with the trait "grad"."""
        ...

    def active(self) -> AbstractContextManager[Any]:
        """Return a context for each test, which sets flags, for example."""
        ...

    def asking(self) -> AbstractContextManager[Any]:
        """Return a context in which values are read. Outside of it, a target may refuse to compute."""
        ...


class NamespaceTarget:
    """A target for functions that take arrays of a namespace of the array API standard.

    Parameters
    ----------
    module : module
        The namespace.
    api : object
        The functions under test.
    name : str
        The target's name; the module's if not given.
    traits : iterable of str
        What the arrays can do; if not given, the target tries it out.
    cases : int or None
        As of `Target`.
    """

    dtypes: tuple[str, ...]
    traits: frozenset[str]

    def __init__(
        self, module: Any, api: Any, name: str = "", traits: Iterable[str] | None = None, cases: int | None = None
    ) -> None:
        self.cases = cases
        self.xp = module
        self.api = api
        self.name = name or module.__name__
        self.traits = frozenset()
        with self.active(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.dtypes = tuple(dtype for dtype in DTYPES if self._has(dtype))
            self.traits = self._try() if traits is None else frozenset(traits)
            self.traits |= {"complex"} if "complex64" in self.dtypes else set()

    def __repr__(self) -> str:
        return self.name

    def make(self, values: Values, dtype: str) -> Array:
        narrow = np.array(values, dtype="float32" if dtype == "bfloat16" else dtype)
        x = self.convert(narrow)
        return self.xp.astype(x, self.xp.bfloat16) if dtype == "bfloat16" else x

    def convert(self, values: Values) -> Array:
        """Return a NumPy array as one of the namespace."""
        try:
            return self.xp.asarray(values)
        except (TypeError, ValueError, NotImplementedError):
            return self.xp.asarray(values.tolist(), dtype=getattr(self.xp, values.dtype.name))

    def read(self, x: Array) -> Values:
        with self.asking():
            return widened(self.to_numpy(x))

    def read_all(self, xs: Sequence[Array]) -> list[Values]:
        return [self.read(x) for x in xs]

    def to_numpy(self, x: Array) -> Values:
        """Return an array of the namespace as a NumPy array."""
        if self.dtype(x) == "bfloat16":
            x = self.xp.astype(x, self.xp.float32)
        try:
            return np.asarray(x)
        except (TypeError, ValueError, RuntimeError):
            return np.from_dlpack(x)

    def dtype(self, x: Array) -> str:
        return str(getattr(x.dtype, "name", None) or x.dtype).rsplit(".", 1)[-1]

    def transposed(self, x: Array) -> Array:
        return self.xp.permute_dims(x, tuple(reversed(range(x.ndim))))

    def broadcast(self, x: Array, shape: tuple[int, ...]) -> Array:
        return self.xp.broadcast_to(x, shape)

    def share(self, values: Values) -> Array:
        return self.xp.asarray(values, copy=False)

    def compiled(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        return fn

    def run(self, fn: Callable[..., Any], *trees: Any) -> Any:
        return self.compiled(fn)(*trees)

    def gradient(self, fn: Callable[[Array], Array], x: Array) -> Array:
        raise NotImplementedError(f"{self.name} has no derivatives")

    def active(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def asking(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def _has(self, dtype: str) -> bool:
        """Whether arrays of a dtype can be made and read back."""
        if not hasattr(self.xp, dtype):
            return False
        try:
            x = self.make(np.ones(1, "complex128" if dtype.startswith("complex") else "float64"), dtype)
            return self.dtype(x) == dtype and bool(np.all(self.read(x) == 1))
        except Exception:  # any error means that the namespace does not have the dtype
            return False

    def _try(self) -> frozenset[str]:
        """Try out the arrays, and return their traits."""
        x, traits = self.make(np.ones(2), "float32"), set()
        with contextlib.suppress(Exception):  # lazy arrays raise any error
            traits |= {"eager", "host", "quick"} if float(x[0]) == 1 else set()
        with contextlib.suppress(Exception):  # immutable arrays raise any error
            part = x[:1]
            part[...] = 2 * part
            traits |= {"writable", "views"} if self.read(x)[0] == 2 else {"writable"}
        return frozenset(traits)


def widened(values: Any) -> Values:
    """Return values as float64, complex128 or int64."""
    found: Values = np.asarray(values)
    wide = {"c": np.complex128, "i": np.int64, "u": np.int64, "b": np.int64}.get(found.dtype.kind, np.float64)
    return found.astype(wide)


def load(name: str) -> Any:
    """Return a module by name. Warnings of its import are ignored."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


def variant(name: str, what: str) -> str:
    """Return the name of a variant of a target: ``jax.numpy[jit]``."""
    return f"{name}[{what}]"
