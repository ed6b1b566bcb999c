"""optax's clipping, with the same names and signatures, a correct norm, and a state that holds the norm.

A threshold may be a policy of `gradclip.policies`. `skip_steps` wraps an optimizer, so that bad steps change nothing.

Write ``from gradclip.backends import optax as gradclip``, and in ``optax.chain`` use
``gradclip.clip_by_global_norm(1.0)`` instead of ``optax.clip_by_global_norm(1.0)``.
"""

from gradclip._elsewhere import Needs

with Needs("optax", "optax", "jax"):
    from gradclip.backends.optax._per_example import per_example_global_norm_clip, per_example_layer_norm_clip
    from gradclip.backends.optax._skip import skip_steps
    from gradclip.backends.optax._state import ClipState, PolicyState, SkipState
    from gradclip.backends.optax._transforms import adaptive_grad_clip, clip, clip_by_block_rms, clip_by_global_norm

__all__ = [
    "ClipState",
    "PolicyState",
    "SkipState",
    "adaptive_grad_clip",
    "clip",
    "clip_by_block_rms",
    "clip_by_global_norm",
    "per_example_global_norm_clip",
    "per_example_layer_norm_clip",
    "skip_steps",
]
