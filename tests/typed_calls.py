"""Calls as users write them, for type checkers; `tests/test_types.py` runs mypy on this file. It is never imported.

`assert_type` says what comes out. A line that ignores an error is a call that must be one: mypy's strict mode reports
ignores that are not needed.
"""

from typing import assert_type

import jax
import numpy as np
import numpy.typing as npt
import torch

import gradclip
from gradclip import NormPartial
from gradclip._types import Array
from gradclip.backends import jax as gradclip_jax
from gradclip.backends import optax as gradclip_optax
from gradclip.backends import torch as gradclip_torch

NDArray = npt.NDArray[np.float32]


def numpy_containers(grads: dict[str, NDArray], pair: tuple[NDArray, NDArray], one: NDArray) -> None:
    assert_type(gradclip.clip_by_global_norm(grads, 1.0), tuple[dict[str, NDArray], Array])
    assert_type(gradclip.clip_by_global_norm(pair, 1.0, nonfinite="zero"), tuple[tuple[NDArray, NDArray], Array])
    assert_type(gradclip.clip_by_norm(one, 1.0), NDArray)
    assert_type(gradclip.clip_by_rms(grads, np.float32(1.0)), dict[str, NDArray])
    assert_type(gradclip.clip_by_value(pair, 1, min_value=-2), tuple[NDArray, NDArray])
    assert_type(gradclip.adaptive_grad_clip(grads, grads), dict[str, NDArray])
    assert_type(gradclip.clip_per_example(grads, 1.0), tuple[dict[str, NDArray], Array])
    assert_type(gradclip.clip_with_norm(grads, 1.0, gradclip.norm_partial(grads)), dict[str, NDArray])
    assert_type(gradclip.leaf_norms(grads), dict[str, NDArray])
    assert_type(gradclip.clip_by_global_norm_(grads, None), Array)
    assert_type(gradclip.norm_partial(grads), NormPartial)
    norm = gradclip.global_norm(grads)
    assert_type(norm, Array)
    assert_type(float(norm), float)
    assert_type(gradclip.clip_by_norm(one, norm), NDArray)


def numpy_mistakes(grads: list[NDArray]) -> None:
    gradclip.clip_by_global_norm(grads, "1.0")  # type: ignore[arg-type]
    gradclip.clip_by_global_norm(grads, 1.0, nonfinite="ignore")  # type: ignore[arg-type]
    gradclip.clip_by_value(grads, None)  # type: ignore[arg-type]
    gradclip.clip_by_norm(grads)  # type: ignore[call-arg]
    gradclip.global_norm(grads, 1.0)  # type: ignore[call-arg]


def tensors(grads: dict[str, torch.Tensor], model: torch.nn.Module) -> None:
    assert_type(gradclip.clip_by_global_norm(grads, 1.0), tuple[dict[str, torch.Tensor], Array])
    assert_type(gradclip_torch.clip_by_global_norm(grads, 1.0), tuple[dict[str, torch.Tensor], torch.Tensor])
    assert_type(gradclip_torch.clip_by_norm(grads, torch.tensor(1.0)), dict[str, torch.Tensor])
    assert_type(gradclip_torch.clip_per_example(grads, 1.0), tuple[dict[str, torch.Tensor], torch.Tensor])
    assert_type(gradclip_torch.clip_by_global_norm_(model, 1.0), torch.Tensor)
    assert_type(gradclip_torch.global_norm(grads), torch.Tensor)
    assert_type(gradclip_torch.clip_grad_norm_(model.parameters(), 1.0), torch.Tensor)
    gradclip_torch.clip_by_norm(grads, "1.0")  # type: ignore[arg-type]


def jax_arrays(grads: dict[str, jax.Array]) -> None:
    assert_type(gradclip.clip_by_global_norm(grads, 1.0), tuple[dict[str, jax.Array], Array])
    assert_type(gradclip_jax.clip_by_global_norm(grads, 1.0), tuple[dict[str, jax.Array], jax.Array])
    assert_type(gradclip_jax.clip_by_norm(grads, jax.numpy.ones(())), dict[str, jax.Array])
    assert_type(gradclip_jax.global_norm(grads), jax.Array)
    assert_type(gradclip_optax.ClipState(*[jax.numpy.ones(())] * 4).norm, jax.Array)
    gradclip_jax.clip_by_global_norm(grads, "1.0")  # type: ignore[arg-type]
    gradclip_optax.clip_by_global_norm("1.0")  # type: ignore[arg-type]
