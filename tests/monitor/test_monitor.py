"""`NormMonitor`: what it records of handles, clippers, optax's states, and by hand."""

import json
import math

import numpy as np
import pytest

import gradclip
from gradclip.monitor import NormMonitor
from gradclip.policies import SkipStep

torch = pytest.importorskip("torch")
from gradclip.backends.torch import attach, grad_norms  # noqa: E402


def model_and_optimizer():
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    return model, torch.optim.SGD(model.parameters(), lr=0.01)


def train(model, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(4, 3)).square().sum().backward()
        yield [p.grad.clone() for p in model.parameters()]
        optimizer.step()


def test_a_handle_is_watched():
    model, optimizer = model_and_optimizer()
    handle = attach(optimizer, 1.0)
    monitor = NormMonitor(handle, parameters=lambda: grad_norms(model))
    wanted = [[float(g.norm()) for g in grads] for grads in train(model, optimizer, 7)]
    history = monitor.history()
    assert history.step.tolist() == list(range(7))
    np.testing.assert_allclose(history.norm, [math.hypot(*norms) for norms in wanted], rtol=1e-6)
    assert list(history.parameters) == ["weight", "bias"]
    np.testing.assert_allclose(history.parameters["weight"], [norms[0] for norms in wanted], rtol=1e-5)
    assert set(history.max_norm) == {1.0}
    assert history.clipped.tolist() == (history.norm > 1).tolist()
    np.testing.assert_allclose(history.coefficient, np.minimum(1, 1 / history.norm), rtol=1e-6)
    last = monitor.last()
    assert set(last) == {
        "grad_norm", "grad_norm/weight", "grad_norm/bias", "gradclip/coefficient", "gradclip/clipped",
        "gradclip/max_norm", "gradclip/skipped",
    }  # fmt: skip
    assert all(type(value) is float for value in last.values())


def test_skipped_steps_are_recorded():
    model, optimizer = model_and_optimizer()
    monitor = NormMonitor(attach(optimizer, SkipStep(threshold=1e-6)))
    list(train(model, optimizer, 3))
    assert monitor.summary().skipped == 1.0


def test_a_clipper_is_watched():
    clipper = gradclip.Clipper(2.0)
    monitor = NormMonitor(clipper)
    for norm in (1.0, 5.0):
        clipper([np.array([norm])])
    assert monitor.history().norm.tolist() == [1, 5]
    assert monitor.last()["gradclip/clipped"] == 1
    assert monitor.last()["gradclip/max_norm"] == 2


def test_a_state_of_optax_is_recorded():
    pytest.importorskip("optax")
    import jax.numpy as jnp

    from gradclip.backends import optax as ours

    tx = ours.clip_by_global_norm(2.5)
    state = tx.init(jnp.zeros(2))
    monitor = NormMonitor()
    for grads in ([3.0, 4.0], [0.3, 0.4]):
        _, state = tx.update(jnp.array(grads), state)
        monitor.update(state, max_norm=2.5)
    history = monitor.history()
    np.testing.assert_allclose(history.norm, [5, 0.5], rtol=1e-6)
    assert history.clipped.tolist() == [True, False]
    with pytest.raises(TypeError, match="expected the ClipState"):
        monitor.update((state,))


def test_memory_is_bounded_and_the_histogram_has_all():
    monitor = NormMonitor(window=50, fetch_every=7)
    for step in range(1000):
        monitor.record(1.0 + step)
    assert monitor.history().step.tolist() == list(range(950, 1000))
    assert monitor.histogram.count == 1000
    assert monitor.histogram.quantile(0.5) == pytest.approx(500, rel=0.02)
    assert not monitor._waiting


def test_arrays_are_kept_until_they_are_fetched():
    monitor = NormMonitor(fetch_every=10)
    norm = torch.tensor(3.0)
    monitor.record(norm)
    assert monitor._waiting[0][1]["norm"] is norm
    monitor.record(norm, step=10)
    assert monitor.history().step.tolist() == [0, 10]


def test_files_are_appended_to_by_a_resumed_run(tmp_path):
    for begin in (0, 3):
        monitor = NormMonitor(fetch_every=1, writers=[tmp_path / "norms.jsonl", tmp_path / "norms.csv"])
        for step in range(begin, begin + 3):
            monitor.record(float(step) if step != 1 else math.nan, step=step, max_norm=2.0)
    lines = [json.loads(line) for line in (tmp_path / "norms.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(6))
    assert lines[1]["grad_norm"] == "nan"
    rows = (tmp_path / "norms.csv").read_text().splitlines()
    assert rows[0] == "step,grad_norm,gradclip/max_norm"
    assert len(rows) == 7
    with pytest.raises(ValueError, match="has no column 'update_norm'"):
        monitor.record(1.0, update_norm=2.0)


def test_add_scalar_is_called():
    class Writes:
        def __init__(self):
            self.seen = []

        def add_scalar(self, tag, scalar_value, global_step):
            self.seen.append((tag, scalar_value, global_step))

    board = Writes()
    monitor = NormMonitor(fetch_every=2, writers=[board])
    monitor.record(1.0)
    assert board.seen == []
    monitor.record(2.0)
    assert board.seen == [("grad_norm", 1.0, 0), ("grad_norm", 2.0, 1)]


def test_a_resumed_monitor_goes_on():
    monitor = NormMonitor()
    for norm in (1.0, 2.0):
        monitor.record(norm)
    other = NormMonitor()
    other.load_state_dict(json.loads(json.dumps(monitor.state_dict())))
    other.record(3.0)
    assert other.history().step.tolist() == [0, 1, 2]
    assert other.histogram.count == 3


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"source": object()}, TypeError, "expected the handle of attach"),
        ({"writers": ["norms.txt"]}, ValueError, "expected .jsonl or .csv"),
        ({"writers": [3]}, TypeError, "a writer is 3, expected a path"),
        ({"window": 0}, ValueError, "window=0, expected an integer of at least 1"),
    ],
)
def test_what_it_cannot_do_it_says(arguments, error, words):
    with pytest.raises(error, match=words):
        NormMonitor(**arguments)
