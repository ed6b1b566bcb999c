"""Where PyTorch's tensors are in the host's memory, for `HostOps`. PyTorch is not imported here.

PyTorch's functions are taken from the namespace of the tensors, as array_api_compat returns it.
"""

import sys
from array import array
from collections.abc import Callable, Sequence
from functools import cache
from operator import attrgetter
from typing import Any

from gradclip import _dtypes, _native
from gradclip._array_ops import ArrayOps
from gradclip._dlpack_finder import finder
from gradclip._host_memory import Runs, code_of, is_leading, runs_of
from gradclip._host_ops import HostOps
from gradclip._memory import NDArray
from gradclip._native import Table
from gradclip._types import AnyArray as Array
from gradclip._types import Namespace

_is_cpu, _dtype, _nbytes = attrgetter("is_cpu"), attrgetter("dtype"), attrgetter("nbytes")
_requires_grad = attrgetter("requires_grad")

_WITHIN_FLOAT32 = 3e38
"""Smaller numbers are in float32's range. PyTorch makes no float32 tensor of one that is not: it is float64 first."""


class TensorMemory:
    """Answers to what `HostOps` asks about CPU tensors; see `gradclip._host_memory.Memory`.

    Parameters
    ----------
    torch : namespace
        PyTorch's functions.
    """

    def __init__(self, torch: Namespace) -> None:
        self.torch = torch
        self.types = {torch.Tensor, torch.nn.Parameter}
        self._find = finder(torch.Tensor)
        self._team = _native.team_in(sys.modules["torch._C"].__file__)
        self.rest = ArrayOps(torch)
        self._is_contiguous, self._data_ptr = torch.Tensor.is_contiguous, torch.Tensor.data_ptr
        self._is_inference: Callable[[Array], bool] = torch.Tensor.is_inference
        self._is_compiling: Callable[[], bool] = torch.compiler.is_compiling
        self._is_dispatched: Callable[[], bool] = torch.utils._python_dispatch.is_in_torch_dispatch_mode
        self._increment_version = torch.autograd.graph.increment_version
        self._forward = torch.autograd.forward_ad

    def holds(self, leaves: Sequence[Array]) -> bool:
        """Whether leaves are plain tensors, of no subclass, in the host's memory, and not traced by a compiler."""
        return self.are_plain(leaves) and all(map(_is_cpu, leaves))

    def are_plain(self, leaves: Sequence[Array]) -> bool:
        """Whether leaves are plain tensors, of no subclass, and not traced by a compiler."""
        return set(map(type, leaves)) <= self.types and not self._is_compiling()

    def is_watched(self, leaves: Sequence[Array]) -> bool:
        """Whether PyTorch records or sees what is done with leaves.

        It does for derivatives, backward (``requires_grad``) or forward (``make_dual``), and for a mode that sees every
        operation (``make_fx``, FakeTensorMode).
        """
        recorded = self.torch.is_grad_enabled() and any(map(_requires_grad, leaves))
        return recorded or self._is_dispatched() or self._forward._current_level >= 0

    def runs(self, leaves: Sequence[Array]) -> Runs | None:
        """Return where tensors are, None if they are traced by a transform of torch.func.

        A tensor that conjugates or negates what is in memory has the same norm, and is multiplied alike.
        """
        try:
            return self.alike(leaves) or runs_of(map(_place, leaves))
        except RuntimeError:  # there are no addresses
            return None

    def joined(self, leaves: Sequence[Array]) -> Sequence[Array]:
        """Return the tensors: to find the address of one takes no longer than to copy it."""
        return leaves

    def threads(self) -> _native.Threads:
        """Return which threads may work: PyTorch's own."""
        return _native.Threads(self.torch.get_num_threads(), self._team)

    def numbers(self, values: Any, double: bool) -> Array:
        """Return a number, or numbers, as a tensor of float64 or float32."""
        torch, dtype = self.torch, self.dtype(double)
        if isinstance(values, float) and (double or abs(values) < _WITHIN_FLOAT32):
            return torch.scalar_tensor(values, dtype=dtype, device="cpu")
        if isinstance(values, list) and values:  # in a tenth of the time of torch.tensor
            return torch.frombuffer(array("d", values), dtype=torch.float64).to(dtype)
        return torch.tensor(values, dtype=torch.float64, device="cpu").to(dtype)

    def dtype(self, double: bool) -> Array:
        """Return the dtype of such a tensor."""
        return self.torch.float64 if double else self.torch.float32

    def like(self, leaf: Array) -> Array:
        """Return a new tensor of the shape, dtype and order of axes of another."""
        return self.torch.empty_like(leaf, requires_grad=False)

    def own(self, values: NDArray) -> Array:
        """Return a NumPy array as a tensor on the same memory."""
        return self.torch.from_numpy(values)

    def leads(self, leaf: Array, kept: int) -> bool:
        """Whether the slices along the first ``kept`` axes of a tensor lie one after the other; it is one run."""
        return bool(leaf.is_contiguous()) or is_leading(leaf.shape, leaf.stride(), kept)

    def is_plain(self, leaves: Sequence[Array]) -> bool:
        """Whether the elements of tensors are those in memory."""
        return not any(map(is_lazy, leaves))

    def written(self, leaves: Sequence[Array]) -> None:
        """Tell autograd that tensors are written to, as PyTorch's own operations in place do.

        Raises
        ------
        RuntimeError
            If a tensor of inference mode is to be written to outside of it, which PyTorch refuses.
        """
        if not any(map(self._is_inference, leaves)):
            self._increment_version(leaves)
            return
        for x in leaves:  # those of inference mode have no version
            x.as_strided((0,), (1,)).zero_()

    def alike(self, leaves: Sequence[Array]) -> Runs | None:
        """Return where plain tensors are in memory, in few calls, if all are the host's and contiguous; else None."""
        kernels = _native.kernels()
        try:
            if self._find is None or kernels is None:
                return self._alike_in_dtype(leaves) if all(map(_is_cpu, leaves)) else None
            found = kernels.locate(self._find, leaves)
        except (RuntimeError, BufferError):  # one has no address: it is sparse, or traced by a transform of torch.func
            return None
        return found and Runs(found[0], range(len(leaves)), (), found[1])

    def _alike_in_dtype(self, leaves: Sequence[Array]) -> Runs | None:
        """Return where tensors are if all have one dtype and are contiguous: for a PyTorch without DLPack 1.3."""
        dtypes = set(map(_dtype, leaves))
        code = _code(dtypes.pop()) if len(dtypes) == 1 else None
        if code is None or not all(map(self._is_contiguous, leaves)):
            return None
        addresses, nbytes = list(map(self._data_ptr, leaves)), list(map(_nbytes, leaves))
        if 0 in addresses:  # of a tensor without elements, or of one whose memory was freed
            return None
        return Runs(Table(addresses, nbytes, bytes([code[0]]) * len(leaves)), range(len(leaves)), (), code[1])


@cache
def tensor_memory(torch: Namespace) -> TensorMemory:
    """Return the one `TensorMemory` for PyTorch's namespace."""
    return TensorMemory(torch)


def tensor_ops(torch: Namespace, leaves: Sequence[Array]) -> HostOps | None:
    """Return the operations for tensors; None if the kernels must not read and write them by their addresses."""
    memory = tensor_memory(torch)
    if not memory.are_plain(leaves) or memory.is_watched(leaves):
        return None
    if (runs := memory.alike(leaves)) is not None:
        return HostOps(memory.rest, memory, leaves, runs)
    return HostOps(memory.rest, memory) if memory.holds(leaves) else None


def in_memory_order(x: Array) -> Array | None:
    """Return a 1-D view of all elements in the order of their addresses, or None if there are gaps between them."""
    if not x.is_contiguous():
        steps = x.stride()
        x = x.permute(sorted(range(x.dim()), key=lambda axis: -steps[axis]))
    return x.view(-1) if x.is_contiguous() else None


def is_lazy(x: Array) -> bool:
    """Whether a tensor is a view whose elements are the conjugates or negatives of what is in memory."""
    return bool(x.is_conj() or x.is_neg())


def _place(x: Array) -> tuple[int, int, tuple[int, bool]] | None:
    """Return a tensor's address, nbytes and dtype, or None if the kernels cannot read it."""
    code = _code(x.dtype)
    if code is None or not x.is_cpu:
        return None
    flat = in_memory_order(x)
    if flat is None:
        return None
    address = flat.data_ptr()  # 0 of a tensor without elements, and of one whose storage was freed
    return (address, flat.nbytes, code) if address or not flat.nbytes else None


@cache
def _code(dtype: Any) -> tuple[int, bool] | None:
    return code_of(_dtypes.dtype_name(dtype))
