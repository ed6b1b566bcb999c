"""The one error for gradients that are not finite, wherever it is raised."""

import importlib
import pickle

import numpy as np
import pytest

import gradclip

PYTORCH = "The total norm of order 2.0 for gradients from `parameters` is non-finite, so it cannot be clipped."


def test_it_is_what_numpys_and_pytorchs_callers_catch():
    assert issubclass(gradclip.NonFiniteError, FloatingPointError)
    assert issubclass(gradclip.NonFiniteError, RuntimeError)
    error = gradclip.NonFiniteError("a")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is gradclip.NonFiniteError
    assert again.args == ("a",)
    assert b"gradclip\n" in pickle.dumps(error, 0)


def raised(call):
    with pytest.raises(gradclip.NonFiniteError) as error:
        call()
    return str(error.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_its_message_begins_as_pytorchs_and_names_the_gradient(bad):
    grads = {"a": np.ones(2), "b": np.array([1.0, bad])}
    for clip in (gradclip.clip_by_global_norm, gradclip.clip_by_global_norm_):
        said = raised(lambda clip=clip: clip(grads, 1.0, nonfinite="error"))
        assert said.startswith(f"{PYTORCH} grads['b'] is NaN or inf in some element (non-finite gradients: 1 of 2)")
    said = raised(lambda: gradclip.clip_by_global_norm(grads, 1.0, ord=np.inf, nonfinite="error"))
    assert said.startswith("The total norm of order inf for gradients from `parameters` is non-finite")


def test_pytorch_says_the_same():
    torch = pytest.importorskip("torch")
    ours = importlib.import_module("gradclip.backends.torch")
    p = torch.nn.Parameter(torch.ones(2))
    p.grad = torch.tensor([1.0, torch.nan])
    with pytest.raises(RuntimeError) as theirs:
        torch.nn.utils.clip_grad_norm_([p], 1.0, error_if_nonfinite=True)
    assert str(theirs.value).startswith(PYTORCH)
    calls = [
        lambda: ours.clip_grad_norm_([p], 1.0, error_if_nonfinite=True),
        lambda: ours.clip_grad_norm_([p], 1.0, nonfinite="error"),
        lambda: ours.get_total_norm([p.grad], error_if_nonfinite=True),
        lambda: torch.compile(ours.clip_grad_norm_, backend="eager")([p], 1.0, error_if_nonfinite=True),
        lambda: torch.compile(ours.get_total_norm, backend="eager")([p.grad], error_if_nonfinite=True),
    ]
    for call in calls:
        assert raised(call).startswith(PYTORCH)
    assert ours.NonFiniteError is gradclip.NonFiniteError
    optimizer = torch.optim.SGD([p], lr=1.0)
    ours.attach(optimizer, 1.0, nonfinite="error")
    assert raised(optimizer.step).startswith(PYTORCH)
    assert p.grad[0] == 1
    assert p.detach().tolist() == [1, 1]


def test_jax_and_optax_say_the_same():
    jnp = pytest.importorskip("jax.numpy")
    grads = {"a": jnp.array([1.0, jnp.nan])}
    api = importlib.import_module("gradclip.backends.jax")
    assert raised(lambda: api.clip_by_global_norm(grads, 1.0, nonfinite="error")).startswith(PYTORCH)
    pytest.importorskip("optax")
    transform = importlib.import_module("gradclip.backends.optax").clip_by_global_norm(1.0, nonfinite="error")
    assert raised(lambda: transform.update(grads, transform.init(grads))).startswith(PYTORCH)
