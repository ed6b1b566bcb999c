"""Paddle: the recipe of docs/integrations/paddle.md, compared with Paddle's own clipping."""

import doctest
from pathlib import Path

import numpy as np
import pytest

import gradclip

paddle = pytest.importorskip("paddle", reason="Paddle is not installed; `make frameworks` installs it")

ROOT = Path(__file__).parents[2]


def views(model):
    return [np.from_dlpack(p.grad.detach()) for p in model.parameters() if p.grad is not None]


def trained(step, steps=12, **options):
    paddle.seed(0)
    model = paddle.nn.Sequential(paddle.nn.Linear(4, 8), paddle.nn.Tanh(), paddle.nn.Linear(8, 1))
    optimizer = paddle.optimizer.Adam(0.02, parameters=model.parameters(), **options)
    x = paddle.to_tensor(np.random.default_rng(0).normal(size=(32, 4)).astype("float32"))
    for _ in range(steps):
        (10 * (model(x) - x.sum(axis=1, keepdim=True)).square().mean()).backward()
        step(model)
        optimizer.step()
        optimizer.clear_grad()
    return [p.numpy() for p in model.parameters()]


def test_a_run_is_that_of_paddles_own_clipping():
    norms = []
    ours = trained(lambda model: norms.append(gradclip.clip_by_global_norm_(views(model), 0.5)))
    theirs = trained(lambda model: None, grad_clip=paddle.nn.ClipGradByGlobalNorm(0.5))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert min(norms) > 0.5


def test_squares_that_overflow():
    """Paddle's own norm of these is inf."""
    gradient = paddle.to_tensor(np.float32([3e20, 4e20]))
    norm = gradclip.clip_by_global_norm_([np.from_dlpack(gradient.detach())], 1.0)
    assert norm == np.float32(5e20)
    np.testing.assert_allclose(gradient.numpy(), [0.6, 0.8], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dtypes(dtype):
    gradient = paddle.to_tensor([300.0] * 4, dtype=dtype)
    gradclip.clip_by_global_norm_([np.from_dlpack(gradient)], 1.0)
    np.testing.assert_allclose(gradient.numpy(), 0.5, rtol=1e-3)


def test_tensors_are_refused_with_what_to_pass():
    with pytest.raises(TypeError, match=r"grads\[0\] is a Tensor, .*; pass numpy.from_dlpack\(x.detach\(\)\)"):
        gradclip.clip_by_global_norm_([paddle.to_tensor([3.0, 4.0])], 1.0)


def test_the_page_in_docs():
    failed, attempted = doctest.testfile(str(ROOT / "docs/integrations/paddle.md"), module_relative=False)
    assert (failed, attempted > 0) == (0, True)
