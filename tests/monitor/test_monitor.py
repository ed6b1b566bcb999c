"""`NormMonitor`: what it records of handles, clippers, states of optax, and by hand."""

import copy
import gc
import json
import math
import pickle
import weakref

import numpy as np
import pytest
import torch

import gradclip
from gradclip.backends.torch import attach
from gradclip.monitor import NormMonitor, read
from gradclip.policies import AdaGC, SkipStep


def model_and_optimizer():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    return model, torch.optim.SGD(model.parameters(), lr=0.01)


def train(model, optimizer, steps):
    """Return the norm of each parameter's gradient before clipping, at each step."""
    norms = []
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(4, 3)).square().sum().backward()
        norms.append([float(p.grad.double().norm()) for p in model.parameters()])
        optimizer.step()
    return np.array(norms)


def test_a_handle_is_watched():
    model, optimizer = model_and_optimizer()
    monitor = NormMonitor(attach(optimizer, 1.0), parameters=model, fetch_every=3)
    wanted = train(model, optimizer, 8)
    history = monitor.history()
    assert history.step.tolist() == list(range(8))
    np.testing.assert_allclose(history.norm, np.sqrt((wanted**2).sum(1)), rtol=1e-6)
    assert list(history.parameters) == [name for name, _ in model.named_parameters()]
    np.testing.assert_allclose(np.array(list(history.parameters.values())).T, wanted, rtol=1e-6)
    assert set(history.max_norm) == {1.0}
    assert history.clipped.tolist() == (history.norm > 1).tolist()
    assert history.clipped.any()
    np.testing.assert_allclose(history.coefficient, np.minimum(1, 1 / history.norm), rtol=1e-6)
    last = monitor.last()
    assert set(last) == {
        "grad_norm", *(f"grad_norm/{name}" for name, _ in model.named_parameters()), "gradclip/coefficient",
        "gradclip/clipped", "gradclip/max_norm", "gradclip/skipped",
    }  # fmt: skip
    assert all(type(value) is float for value in last.values())


def test_norms_of_parameters_are_those_before_clipping_for_any_policy():
    """Also where each gradient has a coefficient of its own, and where all become zero."""
    for policy in (AdaGC(warmup_steps=1), 0.0):
        model, optimizer = model_and_optimizer()
        monitor = NormMonitor(attach(optimizer, policy), parameters=model)
        wanted = train(model, optimizer, 4)
        np.testing.assert_allclose(np.array(list(monitor.history().parameters.values())).T, wanted, rtol=1e-6)


def test_gradients_that_are_scaled_have_unscaled_norms():
    model, optimizer = model_and_optimizer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)
    monitor = NormMonitor(attach(optimizer, 1.0), parameters=model)
    optimizer.grad_scale = torch.tensor(1024.0)
    for p in model.parameters():
        p.grad = torch.full_like(p, 1024.0)
    optimizer.step()
    found = [float(norms[0]) for norms in monitor.history().parameters.values()]
    np.testing.assert_allclose(found, [math.sqrt(p.numel()) for p in model.parameters()], rtol=1e-6)


def test_a_threshold_in_a_tensor_is_recorded_as_it_was():
    model, optimizer = model_and_optimizer()
    limit = torch.tensor(1.0)
    monitor = NormMonitor(attach(optimizer, limit))
    for value in (1.0, 2.0, 3.0):
        limit.fill_(value)
        train(model, optimizer, 1)
    assert monitor.history().max_norm.tolist() == [1, 2, 3]


def test_groups_with_norms_of_their_own():
    model, _ = model_and_optimizer()
    optimizer = torch.optim.SGD([{"params": part.parameters()} for part in model], lr=0.01)
    monitor = NormMonitor(attach(optimizer, 1.0, per_group=True))
    wanted = train(model, optimizer, 3)
    np.testing.assert_allclose(monitor.history().norm, np.sqrt((wanted**2).sum(1)), rtol=1e-6)


def test_skipped_steps_are_recorded():
    model, optimizer = model_and_optimizer()
    monitor = NormMonitor(attach(optimizer, SkipStep(threshold=1e-6)))
    train(model, optimizer, 3)
    assert monitor.summary().skipped == 1.0


def test_a_clipper_is_watched():
    clipper = gradclip.Clipper(2.0)
    grads = {"w": np.array([1.0])}
    monitor = NormMonitor(clipper, parameters=lambda: gradclip.leaf_norms(grads))
    for norm in (1.0, 5.0):
        grads = {"w": np.array([norm])}
        clipper(grads)
    history = monitor.history()
    assert history.norm.tolist() == [1, 5]
    assert history.parameters["w"].tolist() == [1, 5]
    assert monitor.last() == {
        "grad_norm": 5.0, "grad_norm/w": 5.0, "gradclip/coefficient": 0.4, "gradclip/clipped": 1.0,
        "gradclip/skipped": 0.0, "gradclip/max_norm": 2.0,
    }  # fmt: skip


def test_a_loop_that_ignores_skipped_steps_still_gets_an_error():
    clipper = gradclip.Clipper(SkipStep(threshold=1.0))
    monitor = NormMonitor(clipper)
    clipper([np.array([3.0])])
    with pytest.raises(RuntimeError, match="was not read after the last step"):
        clipper([np.array([3.0])])
    assert monitor.last()["gradclip/skipped"] == 1


def test_a_state_of_optax_is_recorded_also_if_it_is_donated():
    optax = pytest.importorskip("optax")
    import jax
    import jax.numpy as jnp

    from gradclip.backends import optax as ours

    tx = optax.chain(ours.clip_by_global_norm(2.5), optax.adam(0.1))
    params = jnp.zeros(2)
    step = jax.jit(lambda grads, state: tx.update(grads, state, params), donate_argnums=1)
    state = tx.init(params)
    monitor = NormMonitor(fetch_every=2)
    for grads in ([3.0, 4.0], [0.3, 0.4], [6.0, 8.0], [jnp.nan, 0.0], [0.0, 0.0]):
        updates, state = step(jnp.array(grads), state)
        monitor.update(state, max_norm=2.5, update_norm=jnp.linalg.norm(updates))
    history = monitor.history()
    np.testing.assert_allclose(history.norm, [5, 0.5, 10, math.nan, 0], rtol=1e-6)
    assert history.clipped.tolist() == [True, False, True, True, False]
    np.testing.assert_allclose(history.coefficient, [0.5, 1, 0.25, math.nan, 1], rtol=1e-6)
    assert history.update_norm[0] == pytest.approx(0.1 * math.sqrt(2), rel=1e-3)
    with pytest.raises(TypeError, match="state is a tuple, expected the ClipState"):
        monitor.update((optax.EmptyState(),))
    with pytest.raises(ValueError, match="holds 2 states of clipping"):
        monitor.update((state, state))


def test_thresholds_and_skipped_steps_of_optax_are_recorded():
    optax = pytest.importorskip("optax")
    import jax
    import jax.numpy as jnp

    from gradclip.backends import optax as ours

    policy, limit = AdaGC(warmup_steps=2, lambda_abs=4.0), SkipStep(threshold=20.0)
    clip = ours.clip_by_global_norm(policy)
    clipper, params = gradclip.Clipper(policy), {"w": jnp.zeros(1), "b": jnp.zeros(1)}
    sizes, states, monitors = [1.0, 1.1, 3.0, 9.0, math.nan, 1.0, 7.0], [], [NormMonitor() for _ in range(3)]
    chains = optax.chain(clip, optax.sgd(0.1)), ours.skip_steps(optax.sgd(0.1), limit), None
    chains = (*chains[:2], ours.skip_steps(optax.chain(clip, optax.sgd(0.1)), limit))
    states = [tx.init(params) for tx in chains]
    steps = [jax.jit(tx.update, donate_argnums=1) for tx in chains]
    for size in sizes:
        grads = {"w": jnp.full(1, 3.0) * size, "b": jnp.full(1, -4.0) * size}
        for i, (step, monitor) in enumerate(zip(steps, monitors, strict=True)):
            _, states[i] = step(grads, states[i])
            monitor.update(states[i])
    clipped, skipped, both = (monitor.history() for monitor in monitors)
    for history in (clipped, skipped, both):
        np.testing.assert_allclose(history.norm, 5 * np.asarray(sizes), rtol=1e-6)
    assert skipped.skipped.tolist() == both.skipped.tolist() == [False, False, False, True, True, False, True]
    assert set(skipped.max_norm) == {20.0}
    for size, *rows in zip(sizes, clipped.max_norm, clipped.coefficient, both.max_norm, strict=True):
        clipper({"b": np.full(1, -4.0 * size), "w": np.full(1, 3.0 * size)})
        np.testing.assert_allclose(rows[0], np.min(clipper.max_norm), rtol=1e-6)
        np.testing.assert_allclose(rows[1], np.min(clipper.coefficient), rtol=1e-6)
    assert both.max_norm[both.skipped].tolist() == [20.0] * 3
    assert not both.clipped[both.skipped].any()
    assert set(both.coefficient[both.skipped]) == {1.0}
    np.testing.assert_allclose(both.max_norm[:3], clipped.max_norm[:3], rtol=1e-6)
    np.testing.assert_allclose(both.coefficient[:3], clipped.coefficient[:3], rtol=1e-6)
    assert monitors[2].summary().skipped == pytest.approx(3 / 7)


def test_memory_is_bounded_and_the_histogram_has_all():
    monitor = NormMonitor(window=50, fetch_every=7)
    for step in range(1000):
        monitor.record(1.0 + step)
    assert 50 <= len(monitor.history()) <= 100
    assert monitor.history().step[-1] == 999
    assert monitor.histogram.count == 1000
    assert monitor.summary().percentiles[50] == pytest.approx(500, rel=0.02)


def test_arrays_are_read_only_after_as_many_steps_again():
    """The values of an array that counts how often it is read."""
    jnp = pytest.importorskip("jax.numpy")
    monitor = NormMonitor(fetch_every=10)
    for _ in range(20):
        monitor.record(jnp.float32(3.0))
    collected = monitor._collected
    assert len(collected.window) == 0
    assert collected._transfer is not None
    monitor.record(jnp.float32(3.0))
    assert len(collected.window) == 10
    assert len(monitor.history()) == 21


def test_arrays_are_recorded_as_they_were():
    monitor = NormMonitor()
    norm = np.array(3.0)
    tensor = torch.tensor(2.0, requires_grad=True)
    monitor.record(norm, loss=tensor, step=5)
    norm[()] = 7.0
    monitor.record(norm, loss=tensor)
    history = monitor.history()
    assert history.norm.tolist() == [3, 7]
    assert history.step.tolist() == [5, 6]
    assert history.loss.tolist() == [2, 2]


def test_a_loss_is_noted_after_the_step():
    model, optimizer = model_and_optimizer()
    monitor = NormMonitor(attach(optimizer, 1.0), fetch_every=2)
    for step in range(5):
        train(model, optimizer, 1)
        monitor.note(loss=torch.tensor(float(step)))
    assert monitor.history().loss.tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(RuntimeError, match="there is no step to add to"):
        monitor.note(loss=1.0)
    with pytest.raises(TypeError, match="accuracy was given, expected one of norm, max_norm"):
        monitor.note(accuracy=1.0)


def test_a_resumed_run_goes_on():
    model, optimizer = model_and_optimizer()
    whole = NormMonitor(attach(optimizer, 1.0), parameters=model, window=5)
    train(model, optimizer, 17)
    saved = json.loads(json.dumps(whole.state_dict()))
    train(model, optimizer, 6)

    model, optimizer = model_and_optimizer()
    handle = attach(optimizer, 1.0)
    train(model, optimizer, 17)
    resumed = NormMonitor(handle, parameters=model, window=5)
    resumed.load_state_dict(saved)
    train(model, optimizer, 6)
    assert resumed.last() == whole.last()
    assert resumed.state_dict() == whole.state_dict()
    assert resumed.summary() == whole.summary()
    with pytest.raises(TypeError, match="expected what state_dict"):
        resumed.load_state_dict({"window": {}})


def test_its_state_is_loaded_as_weights_only(tmp_path):
    model, optimizer = model_and_optimizer()
    monitor = NormMonitor(attach(optimizer, 1.0), parameters=model)
    train(model, optimizer, 3)
    torch.save(monitor.state_dict(), tmp_path / "state.pt")
    assert torch.load(tmp_path / "state.pt", weights_only=True) == monitor.state_dict()


def test_files_of_a_run_have_each_step(tmp_path):
    model, optimizer = model_and_optimizer()
    files = [tmp_path / "norms.jsonl", tmp_path / "norms.csv"]
    monitor = NormMonitor(attach(optimizer, 1.0), parameters=model, fetch_every=3, writers=files)
    train(model, optimizer, 7)
    assert len(files[0].read_text().splitlines()) == 6
    monitor.remove()
    train(model, optimizer, 2)
    lines = [json.loads(line) for line in files[0].read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(7))
    assert {"step": 6, **monitor.last()} == lines[-1]
    assert len(files[1].read_text().splitlines()) == 8


def test_copies_of_what_is_watched_are_not_watched(tmp_path):
    clipper = gradclip.Clipper(2.0)
    monitor = NormMonitor(clipper, writers=[tmp_path / "norms.csv"])
    for other in (copy.deepcopy(clipper), pickle.loads(pickle.dumps(clipper))):
        other([np.ones(2)])
    assert len(monitor.history()) == 0
    clipper([np.ones(2)])
    assert len(monitor.history()) == 1


def test_a_monitor_of_nothing_is_freed(tmp_path):
    reference = weakref.ref(NormMonitor(writers=[tmp_path / "norms.csv"]))
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"source": object()}, TypeError, r"source is an object, expected the handle of attach\(\)"),
        ({"source": gradclip.Clipper(1.0), "parameters": {}}, TypeError, "parameters is a dict, expected a callable"),
        ({"parameters": dict}, TypeError, "was given without a source"),
        ({"writers": ["norms.txt"]}, ValueError, "expected .jsonl or .csv"),
        ({"writers": [3]}, TypeError, "a writer is an int, expected a path"),
        ({"window": 0}, ValueError, "window=0, expected an integer of at least 1"),
        ({"fetch_every": 2.5}, ValueError, "fetch_every=2.5, expected an integer"),
    ],
)
def test_what_it_cannot_do_it_says(arguments, error, words):
    with pytest.raises(error, match=words):
        NormMonitor(**arguments)


def test_a_single_writer_needs_no_list(tmp_path):
    class Scalars:
        def __init__(self):
            self.rows = []

        def add_scalar(self, tag, value, step):
            self.rows.append((tag, value, step))

    scalars = Scalars()
    for target in (str(tmp_path / "log.jsonl"), tmp_path / "log.csv", scalars):
        monitor = NormMonitor(writers=target)
        monitor.record(1.5)
        monitor.fetch()
    assert read(tmp_path / "log.jsonl").norm.tolist() == read(tmp_path / "log.csv").norm.tolist() == [1.5]
    assert scalars.rows == [("grad_norm", 1.5, 0)]


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"norm": "1.5"}, "a number of a step is '1.5', expected a real number or an array"),
        ({"norm": None}, "norm is None, expected a number or an array"),
        ({"norm": 1.0, "loss": object()}, "a number of a step is"),
        ({"norm": 1.0, "step": 1.5}, "step=1.5, expected an integer"),
    ],
)
def test_what_is_no_number_is_refused_at_once(numbers, words):
    monitor = NormMonitor()
    monitor.record(2.0, step=np.int64(7))
    with pytest.raises(TypeError, match=words):
        monitor.record(**numbers)
    monitor.record(3.0)
    with pytest.raises(TypeError, match="a number of a step is '2'"):
        monitor.note(loss="2")
    assert monitor.history().step.tolist() == [7, 8]
