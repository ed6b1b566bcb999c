"""Gradient clipping for JAX: gradclip's pure functions on any pytree, outside of ``jit`` or under any transformation.

The functions are those of `gradclip`, with the arguments ``axis_name=`` for ``shard_map`` and ``pmap`` and ``donate=``
to reuse memory. Outside of ``jit``, a call is compiled once for each structure of pytree, shapes and dtypes. JAX arrays
cannot be written, so there are no in-place functions. They are values, so a leaf that is passed twice is two leaves.
"""

from gradclip._elsewhere import Needs
from gradclip._nonfinite import NonFiniteError
from gradclip._partial import NormPartial

with Needs("jax", "jax"):
    from gradclip.backends.jax._adaptive import adaptive_grad_clip
    from gradclip.backends.jax._by_norm import clip_by_norm, clip_by_rms
    from gradclip.backends.jax._by_value import clip_by_value
    from gradclip.backends.jax._global import clip_by_global_norm, clip_with_norm
    from gradclip.backends.jax._norms import global_norm, leaf_norms, norm_partial
    from gradclip.backends.jax._per_example import clip_per_example
    from gradclip.backends.jax._spikes import clip_spikes

__all__ = [
    "NonFiniteError",
    "NormPartial",
    "adaptive_grad_clip",
    "clip_by_global_norm",
    "clip_by_norm",
    "clip_by_rms",
    "clip_by_value",
    "clip_per_example",
    "clip_spikes",
    "clip_with_norm",
    "global_norm",
    "leaf_norms",
    "norm_partial",
]
