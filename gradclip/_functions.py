"""All public functions: methods written once, bound here to containers of any namespace and by adapters to theirs."""

from gradclip._adaptive import Adaptive
from gradclip._by_norm import ByNorm
from gradclip._by_value import ByValue
from gradclip._calls import as_function
from gradclip._global import ByGlobalNorm
from gradclip._norms import Norms
from gradclip._per_example import PerExample
from gradclip._spikes import Spikes
from gradclip._types import Array, ArrayT


class Functions(
    ByGlobalNorm[ArrayT],
    ByNorm[ArrayT],
    ByValue[ArrayT],
    Adaptive[ArrayT],
    Spikes[ArrayT],
    PerExample[ArrayT],
    Norms[ArrayT],
):
    """The public functions as methods. An adapter overrides only those of `gradclip._containers.Containers`."""


_bound: Functions[Array] = Functions()

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
