"""The demo's network in PyTorch calculates what the one in NumPy does."""

import numpy as np
import pytest
import torch

from demo.backend import Sizes, load_backend
from demo.text import Batch

SIZES = Sizes(vocabulary=7, hidden=6, rows=4, length=5)


def test_loss_gradient_clipping_and_step_are_those_of_numpy():
    rng = np.random.default_rng(0)
    batch = Batch(rng.integers(7, size=(5, 4)), rng.integers(7, size=(5, 4)), True)
    results = {}
    for name in ("numpy", "torch"):
        backend = load_backend(name)
        params, hidden = backend.init(3, SIZES), backend.hidden(SIZES)
        loss, grads, state = backend.loss_and_grads(params, hidden, batch)
        norm = backend.global_norm(grads)
        grads, before = backend.clip_by_global_norm(grads, norm / 3)
        assert before == pytest.approx(norm)
        after = backend.global_norm(grads)
        grads = backend.clip_by_value(grads, 0.01)
        params = backend.sgd(params, grads, 0.5)
        sample = backend.sample(params, [1, 2], 10, 0)
        arrays = {
            n: x.detach().numpy() if isinstance(x, torch.Tensor) else x for n, x in (params | {"s": state}).items()
        }
        results[name] = loss, norm, after, backend.global_norm(grads), arrays, sample
    one, other = results["numpy"], results["torch"]
    assert other[:4] == pytest.approx(one[:4], rel=1e-5)
    for name, x in one[4].items():
        np.testing.assert_allclose(other[4][name], x, rtol=1e-4, atol=1e-6)
    assert other[5] == one[5]
