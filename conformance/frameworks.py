"""The known namespaces, on which the suite runs by default: how to make and read arrays of each."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from gradclip.conformance import trees
from gradclip.conformance.oracles import Values
from gradclip.conformance.targets import Array, NamespaceTarget, Target, load, variant, widened

HOST = {"eager", "host", "quick", "writable", "views", "large"}


class Numpy(NamespaceTarget):
    """NumPy, with bfloat16 from ml_dtypes if that is installed."""

    def make(self, values: Values, dtype: str) -> Array:
        return np.array(values, dtype=self._bfloat16() if dtype == "bfloat16" else dtype)

    def to_numpy(self, x: Array) -> Values:
        return np.asarray(x)

    def _has(self, dtype: str) -> bool:
        return dtype != "bfloat16" or self._bfloat16() is not None

    @staticmethod
    def _bfloat16() -> Any:
        with contextlib.suppress(ImportError):
            return load("ml_dtypes").bfloat16
        return None


class Torch(NamespaceTarget):
    """PyTorch tensors on the CPU."""

    def convert(self, values: Values) -> Array:
        return self.xp.asarray(values.copy())

    def make(self, values: Values, dtype: str) -> Array:
        if dtype == "bfloat16":
            return self.convert(np.array(values, np.float32)).to(self.xp.bfloat16)
        return super().make(values, dtype)

    def transposed(self, x: Array) -> Array:
        return x.permute(tuple(reversed(range(x.ndim))))

    def to_numpy(self, x: Array) -> Values:
        x = x.detach()
        return np.asarray((x.float() if x.dtype == self.xp.bfloat16 else x).numpy())

    def gradient(self, fn: Callable[[Array], Array], x: Array) -> Array:
        x = x.detach().clone().requires_grad_()
        fn(x).backward()
        return x.grad


class CudaTorch(Torch):
    """PyTorch tensors on the current GPU."""

    def convert(self, values: Values) -> Array:
        return super().convert(values).cuda()

    def to_numpy(self, x: Array) -> Values:
        return super().to_numpy(x.cpu())


class Jax(NamespaceTarget):
    """jax.numpy, with or without float64, with or without ``jit``."""

    def __init__(self, module: Any, api: Any, name: str, *, x64: bool = False, jit: bool = False) -> None:
        self.jax = load("jax")
        self.x64, self.jit = x64, jit
        traits = {"grad", "jax", "jit", "large"} if jit else {"eager", "grad", "jax"}
        super().__init__(module, api, name, traits, cases=1 if jit else 2)

    def active(self) -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = self.jax.enable_x64(self.x64)
        return context

    def make(self, values: Values, dtype: str) -> Array:
        return self.xp.asarray(np.array(values, dtype=self.xp.dtype(dtype)))

    def compiled(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        if not self.jit:
            return fn
        return _by_arrays(fn, self.jax.jit)

    def gradient(self, fn: Callable[[Array], Array], x: Array) -> Array:
        return self.run(self.jax.grad(fn), x)


def _by_arrays(fn: Callable[..., Any], compiler: Callable[[Any], Any]) -> Callable[..., Any]:
    """Return a function compiled for the arrays in its arguments; the containers are those of the first call."""
    first: list[Any] = []  # the arguments that fn is traced with, and its result

    def traced(values: list[Array]) -> list[Array]:
        by_id = dict(zip(_distinct(first[0]), values, strict=True))
        first[1:] = [fn(*trees.rebuild(first[0], lambda x: by_id[id(x)]))]
        return trees.arrays(first[1])

    program = compiler(traced)

    def call(*given: Any) -> Any:
        first[:1] = first[:1] or [given]
        out = program(list(_distinct(given).values()))
        return trees.refill(first[1], iter(out))

    return call


def _distinct(given: Any) -> dict[int, Array]:
    """Return the arrays of a container by identity, so that an array that occurs twice is traced once."""
    return {id(x): x for x in trees.arrays(given)}


class Dask(NamespaceTarget):
    """dask.array in several chunks, with a scheduler that refuses to compute outside of ``asking``."""

    def __init__(self, module: Any, api: Any, name: str) -> None:
        self.dask = load("dask")
        super().__init__(module, api, name, {"deferred", "writable", "large"}, cases=2)

    def active(self) -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = self.dask.config.set(scheduler=self._refuse)
        return context

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        # NumPy warns where values are computed, which is here; switch its warnings off.
        with self.dask.config.set(scheduler="synchronous"), np.errstate(all="ignore"):
            yield

    def convert(self, values: Values) -> Array:
        return self.xp.from_array(values, chunks=tuple(max(1, min(-(-n // 2), 1 << 22)) for n in values.shape))

    def read_all(self, xs: Sequence[Array]) -> list[Values]:
        with self.asking():
            return [widened(x) for x in self.dask.compute(*xs)]  # a common part is computed once

    def to_numpy(self, x: Array) -> Values:
        return np.asarray(x.compute() if hasattr(x, "compute") else x)

    def _has(self, dtype: str) -> bool:
        return dtype != "bfloat16"

    @staticmethod
    def _refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("dask was made to compute before anything was asked for")


class Strict(NamespaceTarget):
    """array_api_strict under given flags, on a given device."""

    def __init__(self, module: Any, api: Any, name: str, device: str = "CPU_DEVICE", **flags: Any) -> None:
        self.flags = flags
        self.where = module.Device(device)
        super().__init__(module, api, name, HOST - {"large"}, cases=2 if "[" in name else None)

    def active(self) -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = self.xp.ArrayAPIStrictFlags(**self.flags)
        return context

    def convert(self, values: Values) -> Array:
        return self.xp.asarray(values, device=self.where)


class Sparse(NamespaceTarget):
    """pydata/sparse, in its COO format."""

    def to_numpy(self, x: Array) -> Values:
        return np.asarray(x.todense() if hasattr(x, "todense") else x)


class Ndonnx(NamespaceTarget):
    """ndonnx with arrays that have values."""

    def to_numpy(self, x: Array) -> Values:
        return np.asarray(x.unwrap_numpy() if hasattr(x, "unwrap_numpy") else x)


class Cupy(NamespaceTarget):
    """CuPy arrays on the current GPU."""

    def to_numpy(self, x: Array) -> Values:
        return np.asarray(x.get() if hasattr(x, "get") else x)


class Mlx(NamespaceTarget):
    """MLX arrays, with or without ``mx.compile``, under which it refuses to compute anything."""

    def __init__(self, module: Any, api: Any, name: str, *, compile: bool = False) -> None:
        self.compile = compile
        traits = {"grad", "writable", "large"} | ({"jit"} if compile else {"eager", "quick"})
        super().__init__(module, api, name, traits, cases=2 if compile else None)

    def make(self, values: Values, dtype: str) -> Array:
        narrow = np.array(values, dtype="float32" if dtype == "bfloat16" else dtype)
        return self.xp.array(narrow, self.xp.bool_ if dtype == "bool" else getattr(self.xp, dtype))

    def compiled(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        return _by_arrays(fn, self.xp.compile) if self.compile else fn

    def gradient(self, fn: Callable[[Array], Array], x: Array) -> Array:
        return self.run(self.xp.grad(fn), x)


def _jax(xp: Any, api: Any, name: str) -> Iterator[Target]:
    yield Jax(xp, api, name)
    yield Jax(xp, api, variant(name, "jit"), jit=True)
    yield Jax(xp, api, variant(name, "x64,jit"), x64=True, jit=True)


def _mlx(xp: Any, api: Any, name: str) -> Iterator[Target]:
    yield Mlx(xp, api, name)
    yield Mlx(xp, api, variant(name, "compile"), compile=True)


def _strict(xp: Any, api: Any, name: str) -> Iterator[Target]:
    yield Strict(xp, api, name)
    for version in ("2022.12", "2023.12", "2024.12", "2025.12"):
        yield Strict(xp, api, variant(name, version), api_version=version)
    yield Strict(xp, api, variant(name, "no_boolean_indexing"), boolean_indexing=False)
    yield Strict(xp, api, variant(name, "no_data_dependent_shapes"), data_dependent_shapes=False)
    yield Strict(xp, api, variant(name, "no_extensions"), enabled_extensions=())
    for device in ("device1", "no_float64", "no_x64"):
        yield Strict(xp, api, variant(name, f"device:{device}"), device)


def _cupy(xp: Any, api: Any, name: str) -> Iterator[Target]:
    xp.zeros(1)  # raises if there is no GPU
    yield Cupy(xp, api, name, {"eager", "writable", "views", "large"})


def _unknown(xp: Any, api: Any, name: str) -> Iterator[Target]:
    yield NamespaceTarget(xp, api, name)


KNOWN: dict[str, Callable[[Any, Any, str], Iterator[Target]]] = {
    "numpy": lambda xp, api, name: iter([Numpy(xp, api, name, HOST | {"numpy", "shares"})]),
    "torch": lambda xp, api, name: iter([Torch(xp, api, name, HOST | {"grad", "shares", "torch"})]),
    "jax.numpy": _jax,
    "cupy": _cupy,
    "dask.array": lambda xp, api, name: iter([Dask(xp, api, name)]),
    "mlx.core": _mlx,
    "array_api_strict": _strict,
    "sparse": lambda xp, api, name: iter([Sparse(xp, api, name, {"eager", "host"}, cases=2)]),
    "ndonnx": lambda xp, api, name: iter([Ndonnx(xp, api, name, {"ndonnx", "writable"}, cases=1)]),
}
"""For each known namespace, a function that yields its targets."""


def targets_of(name: str, api: Any, label: str = "") -> list[Target]:
    """Return the targets of a namespace, known or not.

    Raises
    ------
    Exception
        Any error of the import or of making a first array.
    """
    make = KNOWN.get(name, _unknown)
    return list(make(load(name), api, label or name))
