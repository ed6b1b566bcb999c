"""optax's clipping, by its names and signatures, with a norm that is right and a state that tells it.

``from gradclip.backends import optax as gradclip`` and then ``gradclip.clip_by_global_norm(1.0)`` in place of
``optax.clip_by_global_norm(1.0)``, anywhere in ``optax.chain``.
"""

from gradclip._elsewhere import Needs

with Needs("optax", "optax", "jax"):
    from gradclip.backends.optax._per_example import per_example_global_norm_clip, per_example_layer_norm_clip
    from gradclip.backends.optax._state import ClipState
    from gradclip.backends.optax._transforms import adaptive_grad_clip, clip, clip_by_block_rms, clip_by_global_norm

__all__ = [
    "ClipState",
    "adaptive_grad_clip",
    "clip",
    "clip_by_block_rms",
    "clip_by_global_norm",
    "per_example_global_norm_clip",
    "per_example_layer_norm_clip",
]
