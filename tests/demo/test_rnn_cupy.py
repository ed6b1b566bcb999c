"""The network for CuPy: refused in plain words without a GPU, and NumPy's arithmetic on the arrays it is given."""

from types import SimpleNamespace

import numpy as np
import pytest

import gradclip
from demo import rnn, rnn_cupy
from demo.backend import Sizes, load_backend
from demo.checks import RefusedError
from demo.text import Batch

SIZES = Sizes(vocabulary=5, hidden=7, rows=3, length=6)


def test_without_a_gpu_it_is_refused(monkeypatch):
    def none():
        raise RuntimeError("gradclip.backends.cupy found no GPU (there is none), expected an NVIDIA GPU")

    monkeypatch.setattr(rnn_cupy, "runtime", none)
    with pytest.raises(RefusedError, match=r"--backend cupy cannot run: .* found no GPU .* Try --backend numpy\."):
        load_backend("cupy")


def test_it_trains_as_numpy_does(monkeypatch):
    """NumPy plays CuPy: what is tested is that arrays go there and come back, and that each function is found."""
    monkeypatch.setattr(rnn_cupy, "runtime", lambda: SimpleNamespace(cupy=np))
    monkeypatch.setattr(np, "asnumpy", np.asarray, raising=False)
    monkeypatch.setattr(rnn_cupy, "adapter", gradclip)
    text = np.random.default_rng(1).integers(SIZES.vocabulary, size=(SIZES.length + 1, SIZES.rows))
    batch = Batch(text[:-1], text[1:], first=True)
    found = []
    for network in (rnn.RNN(), rnn_cupy.RNN()):
        params, hidden = network.init(0, SIZES), network.hidden(SIZES)
        loss, grads, _ = network.loss_and_grads(params, hidden, batch)
        norm = network.global_norm(grads)
        clipped, before = network.clip_by_global_norm(grads, norm / 2)
        params = network.sgd(params, network.clip_by_value(clipped, 0.1), 0.5)
        found.append((loss, norm, before, network.sample(params, [1, 2], 20, seed=3)))
    assert found[0] == found[1]
