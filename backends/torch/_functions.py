"""The core's public functions for PyTorch: pure functions take containers of tensors, those in place parameters."""

from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from gradclip import _clipper
from gradclip._by_norm import numels_of
from gradclip._calls import Function, as_function
from gradclip._functions import Functions
from gradclip._tree import Leaves
from gradclip._types import Scalar, Units
from gradclip.backends.torch._adaptive import unit_axes
from gradclip.backends.torch._arguments import listed
from gradclip.backends.torch._compiled import between_graphs
from gradclip.backends.torch._containers import flatten, flatten_measured, flatten_params
from gradclip.backends.torch._leaves import TorchLeaves, gradients
from gradclip.backends.torch._sharing import sharing_of


class TorchFunctions(Functions[Tensor]):
    """The public functions on tensors, modules and optimizers."""

    module = "gradclip.backends.torch"

    words: ClassVar = {
        "writable array or container of arrays": "Tensor, Module, Optimizer, iterable or dict",
        "array or container of arrays": "tensor or container of tensors",
        "As for `clip_by_global_norm`; distinct leaves must not overlap in memory.": (
            "As for `clip_grad_norm_`: parameters, whose ``.grad`` is clipped, or gradients in a dict."
        ),
        "An array or any nesting of list, tuple, NamedTuple, dict and dataclass": (
            "A tensor or any nesting of list, tuple, NamedTuple, dict and dataclass, as ``torch.func.grad`` and\n"
            "    ``torch.autograd.grad`` return it"
        ),
        "None leaves are left out.": "None leaves are left out. Of a Module or an Optimizer, the gradients are taken.",
        "0-d norms in place of the leaves,": (
            "0-d norms in place of the leaves (of a Module or an Optimizer, a dict by the parameters' names),"
        ),
        "None is for JAX's layouts: a leaf with at most one axis longer than 1 is one unit; in\n"
        "    other leaves, a unit has axis 0 of 2 or 3 axes, axes 0-2 of 4, axes 0-3 of 5. "
        "For PyTorch's layouts, pass\n    all axes but the first.": (
            "None is for PyTorch's layouts: all axes but the first, which has one index\n"
            "    for each output; a leaf of at most one axis is one unit."
        ),
        " or, if ``axis`` is None, more than 5.": ".",
        "Gradients of shape ``(batch, ...)``": (
            "Gradients of shape ``(batch, ...)``, as ``torch.func.vmap(torch.func.grad(loss))`` returns them"
        ),
        "Examples\n--------\n": "Examples\n--------\nWith NumPy's arrays, by `gradclip`:\n\n",
    }

    def leaves(self, grads: Any) -> TorchLeaves:
        """Return the leaves of gradients, for functions that return new tensors."""
        return flatten(grads)

    def leaves_(self, grads: Any, caller: str) -> TorchLeaves:
        """Return the gradients of parameters, or those in a dict, for functions that write in place."""
        sharing = None if "value" in caller else sharing_of(grads)
        return gradients(listed(grads, depth=6), "grads", caller, sharing)

    def measured(self, grads: Any, *, weights: bool) -> TorchLeaves:
        """Return the leaves for functions that compute norms; of a Module or an Optimizer, the gradients."""
        return flatten_measured(grads, weights=weights)

    def params(self, params: Any, grads: Leaves) -> TorchLeaves:
        """Return the parameters of some gradients, one for each position."""
        assert isinstance(grads, TorchLeaves)  # `leaves` returned them
        return flatten_params(params, grads)

    def units(self, axis: Units) -> Units:
        """Return the axes of a unit; by default all but the first."""
        return unit_axes if axis is None else axis

    def numels(self, leaves: Leaves) -> list[int]:
        """Return the numel of each whole gradient, also if it is sparse or a DTensor."""
        wholes = leaves.wholes if isinstance(leaves, TorchLeaves) else None
        return numels_of(leaves) if wholes is None else [max(1, x.numel()) for x in wholes]


def _public(method: Function) -> Function:
    """Return the public function for a bound method. Autograd does not record functions that write in place."""
    function = as_function(method)
    return between_graphs(torch.no_grad()(function) if method.__name__.endswith("_") else function)


_bound = TorchFunctions()


class Clipper(_clipper.Clipper):
    """Clips gradients by a threshold that a policy chooses at each step; see `gradclip.Clipper`.

    A call takes containers of tensors and returns new ones. ``clip_`` takes what `clip_by_global_norm_` takes:
    parameters, a Module, an Optimizer or gradients in a dict. State and decision are Python numbers for gradients on
    the CPU, else tensors beside the gradients, and the host waits for none.

    Parameters
    ----------
    policy, ord, nonfinite, eps
        As for `gradclip.Clipper`.

    See Also
    --------
    attach : clips at each step of an optimizer, and leaves out the steps that a policy skips.
    """

    _containers = _bound

    @torch.no_grad()
    def clip_(self, grads: Any, *, scale: Scalar = 1.0) -> Tensor:
        """Clip gradients in place, and return the norm that they had, as `gradclip.Clipper.clip_` does."""
        norm: Any = super().clip_(grads, scale=scale)
        return cast("Tensor", norm)


Clipper.__module__ = "gradclip.backends.torch"  # the name that pickles keep


adaptive_grad_clip = _public(_bound.adaptive_grad_clip)
clip_by_global_norm = _public(_bound.clip_by_global_norm)
clip_by_global_norm_ = _public(_bound.clip_by_global_norm_)
clip_by_norm = _public(_bound.clip_by_norm)
clip_by_norm_ = _public(_bound.clip_by_norm_)
clip_by_rms = _public(_bound.clip_by_rms)
clip_by_rms_ = _public(_bound.clip_by_rms_)
clip_by_value = _public(_bound.clip_by_value)
clip_by_value_ = _public(_bound.clip_by_value_)
clip_per_example = _public(_bound.clip_per_example)
clip_spikes = _public(_bound.clip_spikes)
clip_with_norm = _public(_bound.clip_with_norm)
clip_with_norm_ = _public(_bound.clip_with_norm_)
global_norm = _public(_bound.global_norm)
leaf_norms = _public(_bound.leaf_norms)
norm_partial = _public(_bound.norm_partial)
