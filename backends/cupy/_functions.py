"""The core's public functions, bound to containers of CuPy's arrays."""

from typing import Any, ClassVar

from gradclip import _clipper
from gradclip._calls import as_function
from gradclip._functions import Functions
from gradclip._tree import Leaves
from gradclip._types import Array
from gradclip.backends.cupy._tree import flatten


class CupyFunctions(Functions[Array]):
    """The public functions on CuPy's arrays, arrays that come by DLPack, and Chainer's links and parameters."""

    module = "gradclip.backends.cupy"

    words: ClassVar = {
        "array or container of arrays": "array, parameter or container of these",
        "An array or any nesting of list, tuple, NamedTuple, dict and dataclass": (
            "CuPy arrays, arrays that come by DLPack, objects with ``.grad`` (None for none), objects with\n"
            "    ``namedparams()``, or any nesting of list, tuple, NamedTuple, dict and dataclass of these"
        ),
        "The parameters, of the structure and the shapes of ``grads``.": (
            "The parameters, of the structure and the shapes of ``grads``; of objects with ``.data``, that."
        ),
        "For PyTorch's layouts": "For Chainer's layouts",
        "Raises\n------\n": "Raises\n------\nRuntimeError\n    If CuPy is not installed, or finds no GPU.\n",
        "Examples\n--------\n": "Examples\n--------\nWith NumPy's arrays, by `gradclip`:\n\n",
    }

    def leaves(self, grads: Any) -> Leaves:
        """Return the leaves of gradients, for functions that return new arrays."""
        return flatten(grads)

    def leaves_(self, grads: Any, caller: str) -> Leaves:  # noqa: ARG002  # errors name the path alone
        """Return the leaves of gradients, for functions that write in place."""
        return flatten(grads)

    def measured(self, grads: Any, *, weights: bool) -> Leaves:
        """Return the leaves for functions that compute norms; of objects with ``.grad``, their gradients."""
        return flatten(grads, weights=weights)

    def params(self, params: Any, grads: Leaves) -> Leaves:  # noqa: ARG002  # they do not matter
        """Return the parameters of some gradients, one for each position."""
        return flatten(params, "params", attribute="data", distinct=False)


_bound = CupyFunctions()


class Clipper(_clipper.Clipper):
    """Clips gradients on GPUs by a threshold that a policy chooses at each step; see `gradclip.Clipper`.

    It takes what the functions of this module take. State and decision are CuPy's arrays, and the host waits for none.

    Parameters
    ----------
    policy, ord, nonfinite, eps
        As for `gradclip.Clipper`.
    """

    _containers = _bound


Clipper.__module__ = "gradclip.backends.cupy"  # the name that pickles keep


adaptive_grad_clip = as_function(_bound.adaptive_grad_clip)
adaptive_grad_clip_ = as_function(_bound.adaptive_grad_clip_)
clip_by_global_norm = as_function(_bound.clip_by_global_norm)
clip_by_global_norm_ = as_function(_bound.clip_by_global_norm_)
clip_by_norm = as_function(_bound.clip_by_norm)
clip_by_norm_ = as_function(_bound.clip_by_norm_)
clip_by_rms = as_function(_bound.clip_by_rms)
clip_by_rms_ = as_function(_bound.clip_by_rms_)
clip_by_value = as_function(_bound.clip_by_value)
clip_by_value_ = as_function(_bound.clip_by_value_)
clip_per_example = as_function(_bound.clip_per_example)
clip_spikes = as_function(_bound.clip_spikes)
clip_spikes_ = as_function(_bound.clip_spikes_)
clip_with_norm = as_function(_bound.clip_with_norm)
clip_with_norm_ = as_function(_bound.clip_with_norm_)
global_norm = as_function(_bound.global_norm)
leaf_norms = as_function(_bound.leaf_norms)
norm_partial = as_function(_bound.norm_partial)
