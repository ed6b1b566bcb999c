"""Real runs of Keras on the backend that KERAS_BACKEND names: test_keras.py starts one process for each.

Keras has no fused optimizers and no GradScaler: in float16 it wraps the optimizer in a LossScaleOptimizer.
"""

import os
import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest

import gradclip
from gradclip import policies
from gradclip.backends.keras import ClipLog, clipped
from gradclip.monitor import NormMonitor

TORCH = keras.backend.backend() == "torch"
RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 4)).astype("float32")
Y = np.sin(X.sum(axis=1, keepdims=True))
Adam, SGD = keras.optimizers.Adam, keras.optimizers.SGD


def network():
    keras.utils.set_random_seed(0)
    layers = [keras.Input((4,)), keras.layers.Dense(16, activation="tanh"), keras.layers.Dense(1)]
    return keras.Sequential(layers)


def fit(optimizer, epochs=3, callbacks=(), model=None, **options):
    """Train on the same batches in the same order; return the model and the logs."""
    if model is None:
        model = network()
        model.compile(optimizer, "mse", **options)
    logs = model.fit(X, Y, batch_size=16, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks))
    return model, logs.history


def assert_same(one, other):
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-7)


@pytest.fixture
def float_policy():
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


ARGUMENTS = [
    (Adam, {"learning_rate": 0.02}),
    (Adam, {"learning_rate": 0.02, "amsgrad": True}),
    (SGD, {"learning_rate": 0.1, "momentum": 0.9}),
    (keras.optimizers.AdamW, {"learning_rate": 0.02, "weight_decay": 0.1}),
    (keras.optimizers.Lion, {"learning_rate": 0.002}),
    (keras.optimizers.Muon, {"learning_rate": 0.01}),
    (Adam, {"learning_rate": 0.02, "use_ema": True, "ema_overwrite_frequency": 3}),
    (Adam, {"learning_rate": keras.optimizers.schedules.CosineDecay(0.05, 12)}),
    (Adam, {"learning_rate": 0.02, "gradient_accumulation_steps": 2}),
    (Adam, {"learning_rate": 0.02, "loss_scale_factor": 1024.0}),
]


@pytest.mark.parametrize(("optimizer", "arguments"), ARGUMENTS)
def test_a_run_is_that_of_global_clipnorm(optimizer, arguments):
    ours, logs = fit(clipped(optimizer)(max_norm=0.5, **arguments), callbacks=[ClipLog()])
    theirs, _ = fit(optimizer(global_clipnorm=0.5, **arguments))
    assert_same(ours, theirs)
    assert 0 < logs["clipped"][0] <= 1
    assert logs["grad_norm"][0] > 0.5


@pytest.mark.parametrize("options", [{"jit_compile": True}, {"run_eagerly": True}], ids=str)
def test_compiled_and_eager(options):
    ours, logs = fit(clipped(SGD)(0.1, max_norm=0.5), callbacks=[ClipLog()], **options)
    theirs, _ = fit(SGD(0.1, global_clipnorm=0.5))
    assert_same(ours, theirs)
    assert logs["clipped"][0] == 1


def test_clip_by_value_is_that_of_clipvalue():
    ours, _ = fit(clipped(Adam)(learning_rate=0.02, max_value=0.05))
    theirs, _ = fit(Adam(learning_rate=0.02, clipvalue=0.05))
    assert_same(ours, theirs)


def test_without_a_threshold_the_norm_is_measured_only():
    ours, logs = fit(clipped(Adam)(0.02), callbacks=[ClipLog()])
    assert_same(ours, fit(Adam(0.02))[0])
    assert logs["clipped"] == [0, 0, 0]
    assert logs["grad_norm"][0] > 0


@pytest.mark.parametrize("name", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(float_policy, name):
    """Keras itself wraps the optimizer in a LossScaleOptimizer for float16."""
    float_policy(name)
    ours, logs = fit(clipped(Adam)(learning_rate=0.02, max_norm=0.5), callbacks=[ClipLog()])
    theirs, _ = fit(Adam(learning_rate=0.02, global_clipnorm=0.5))
    assert (type(ours.optimizer) is keras.optimizers.LossScaleOptimizer) == (name == "mixed_float16")
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)
    assert 0.5 < logs["grad_norm"][0] < 50  # the norm without the loss scale of 32768
    assert logs["clipped"][0] > 0


def test_a_step_that_overflows_enters_no_state(float_policy):
    float_policy("mixed_float16")
    inner = clipped(Adam)(learning_rate=0.02, max_norm=policies.ZClip(warmup_steps=2))
    model, _ = fit(keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**40), epochs=1)
    assert int(inner.iterations) == 0
    assert int(inner.clipped_steps) == 0
    assert state_of(inner)["count"] == 0
    fit(None, epochs=12, model=model)
    assert int(inner.iterations) > 5
    assert state_of(inner)["count"] == 2
    assert np.isfinite(state_of(inner)["mean"])


def state_of(optimizer):
    return {name: v.numpy() for name, v in zip(optimizer._fields, optimizer._policy_state, strict=True)}


def test_squares_that_overflow():
    """Keras's own norm is inf here, and the gradients become NaN."""
    grad = np.float32([3e20, 4e20])
    ours, theirs = (keras.Variable(np.zeros(2, "float32")) for _ in range(2))
    optimizer = clipped(SGD)(1.0, max_norm=1.0)
    optimizer.apply([keras.ops.array(grad)], [ours])
    SGD(1.0, global_clipnorm=1.0).apply([keras.ops.array(grad)], [theirs])
    np.testing.assert_allclose(ours.numpy(), [-0.6, -0.8], rtol=1e-6)
    assert not np.allclose(theirs.numpy(), ours.numpy())
    assert float(optimizer.grad_norm) == np.float32(5e20)
    assert float(optimizer.clip_coefficient) == np.float32(1 / 5e20)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_gradients_that_are_not_finite(bad):
    for nonfinite in ("propagate", "zero"):
        weight = keras.Variable(np.zeros(2, "float32"))
        optimizer = clipped(SGD)(1.0, max_norm=1.0, nonfinite=nonfinite)
        optimizer.apply([keras.ops.array(np.float32([bad, 1]))], [weight])
        assert np.isnan(weight.numpy()).any() == (nonfinite == "propagate")
        assert not np.isfinite(float(optimizer.grad_norm))


POLICIES = [
    policies.Fixed(0.7),
    policies.Schedule(lambda step: 1.0 / (1 + step)),
    policies.ZClip(warmup_steps=3, max_norm=None),
    policies.AutoClip(percentile=30, window=5),
    policies.QuantileClip(initial=0.5),
    policies.EmaClip(ratio=1.1),
    policies.AdaGC(warmup_steps=3),
    policies.SkipStep(threshold=2.0),
    policies.SkipStep(sigma=1.5, window=4),
]


def steps(n=12):
    """Return gradients of two tensors with norms that vary, NaN and a spike among them."""
    rng = np.random.default_rng(1)
    found = [[rng.normal(size=s).astype("float32") * rng.uniform(0.3, 1.5) for s in ((3,), (2, 2))] for _ in range(n)]
    found[7] = [50 * g for g in found[7]]
    return found


@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: repr(p)[:30])
def test_policies_give_what_a_clipper_gives_on_numpy(policy):
    """With SGD at a learning rate of 1, the step is the clipped gradient."""
    clipper = gradclip.Clipper(policy)
    optimizer = clipped(SGD)(1.0, max_norm=policy)
    weights = [keras.Variable(np.zeros(s, "float32")) for s in ((3,), (2, 2))]
    clips = skips = 0
    for grads in steps():
        right, norm = clipper(grads)
        skips += bool(clipper.skipped)
        clips += bool(clipper.clipped)
        right = [0 * g for g in grads] if clipper.skipped else right
        before = [w.numpy().copy() for w in weights]
        optimizer.apply([keras.ops.array(g) for g in grads], weights)
        for w, old, g in zip(weights, before, right, strict=True):
            np.testing.assert_allclose(old - w.numpy(), g, rtol=1e-5, atol=2e-6)
        np.testing.assert_allclose(float(optimizer.grad_norm), float(norm), rtol=1e-6)
        assert [int(optimizer.clipped_steps), int(optimizer.skipped_steps)] == [clips, skips]
    assert int(optimizer.iterations) == len(steps()) - skips
    for name, value in (clipper.state_dict()["state"] or {}).items():
        np.testing.assert_allclose(state_of(optimizer)[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("steps_together", [None, 2])
def test_a_skipped_step_changes_nothing(steps_together):
    """Neither momenta nor weight decay nor averages nor the number of steps."""
    optimizer = clipped(keras.optimizers.AdamW)(
        0.1, weight_decay=0.5, use_ema=True, max_norm=policies.SkipStep(5.0), gradient_accumulation_steps=steps_together
    )
    weight = keras.Variable(np.ones(2, "float32"))
    batches = steps_together or 1

    def apply(*grad):
        for _ in range(batches):
            optimizer.apply([keras.ops.array(np.float32(grad))], [weight])

    apply(1, 2)
    before = [v.numpy().copy() for v in [weight, *optimizer.variables]]
    apply(30, 40)
    after = [v.numpy().copy() for v in [weight, *optimizer.variables]]
    told = {id(v) for v in optimizer._of_clipping}
    for v, a, b in zip([weight, *optimizer.variables], before, after, strict=True):
        assert id(v) in told or np.array_equal(a, b), v.path
    assert (int(optimizer.skipped_steps), float(optimizer.grad_norm)) == (1, 50)
    apply(1, 2)
    assert int(optimizer.iterations) == 2
    assert not np.array_equal(weight.numpy(), before[0])


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_a_run_that_is_saved_and_loaded_goes_on_as_it_would_have(tmp_path, float_policy, dtype):
    float_policy(dtype)

    def optimizer():
        return clipped(Adam)(learning_rate=0.02, max_norm=policies.ZClip(warmup_steps=3, max_norm=0.8))

    whole, _ = fit(optimizer(), epochs=4)
    first, _ = fit(optimizer(), epochs=2)
    first.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert (type(loaded.optimizer) is keras.optimizers.LossScaleOptimizer) == (dtype == "mixed_float16")
    assert type(inner(loaded)) is clipped(Adam)
    assert inner(loaded).max_norm == policies.ZClip(warmup_steps=3, max_norm=0.8)
    for a, b in zip(first.optimizer.variables, loaded.optimizer.variables, strict=True):
        assert np.array_equal(a.numpy(), b.numpy())
    resumed, _ = fit(None, epochs=2, model=loaded)
    assert_same(resumed, whole)
    assert state_of(inner(resumed))["mean"] == pytest.approx(state_of(inner(whole))["mean"], rel=1e-5)


def inner(model):
    return getattr(model.optimizer, "inner_optimizer", model.optimizer)


def test_a_model_loads_in_a_process_that_only_imports_the_module(tmp_path):
    model, _ = fit(keras.optimizers.LossScaleOptimizer(clipped(Adam)(learning_rate=0.02, max_norm=0.5)), epochs=1)
    model.save(tmp_path / "model.keras")
    code = (
        "import keras, gradclip.backends.keras, sys\n"
        "inner = keras.models.load_model(sys.argv[1]).optimizer.inner_optimizer\n"
        "print(type(inner).__name__, inner.max_norm, int(inner.iterations))"
    )
    run = [sys.executable, "-c", code, str(tmp_path / "model.keras")]
    out = subprocess.run(run, check=True, capture_output=True, text=True, env=dict(os.environ)).stdout
    assert out.split() == ["ClippedAdam", "0.5", "4"]


def test_a_checkpoint_of_the_optimizer_without_clipping_loads(tmp_path):
    theirs, _ = fit(Adam(learning_rate=0.02), epochs=2)
    theirs.save_weights(tmp_path / "x.weights.h5")
    ours, _ = fit(clipped(Adam)(learning_rate=0.02, max_norm=np.inf), epochs=1)
    ours.load_weights(tmp_path / "x.weights.h5")
    assert int(ours.optimizer.iterations) == 8
    assert_same(fit(None, epochs=1, model=ours)[0], fit(None, epochs=1, model=theirs)[0])


@keras.saving.register_keras_serializable("tests")
def falling(step):
    return 1.0 / (1 + step)


@pytest.mark.parametrize("max_norm", [None, 0.5, np.inf, policies.Schedule(falling), *POLICIES[2:]], ids=repr)
def test_configurations_come_back(max_norm):
    optimizer = clipped(Adam)(0.02, max_norm=max_norm, max_value=3.0)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is type(optimizer)
    assert again.max_norm == max_norm
    assert again.get_config() == optimizer.get_config()


def test_an_optimizer_of_ones_own():
    class Mine(SGD):
        pass

    assert_same(fit(clipped(Mine)(0.1, max_norm=0.5))[0], fit(SGD(0.1, global_clipnorm=0.5))[0])
    assert clipped(clipped(SGD)) is clipped(SGD)


def test_weights_without_a_gradient_are_left_out():
    weights = [keras.Variable(np.ones(2, "float32")) for _ in range(2)]
    optimizer = clipped(SGD)(1.0, max_norm=1.0)
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply([keras.ops.array(np.float32([3, 4])), None], weights)
    np.testing.assert_allclose(weights[0].numpy(), [0.4, 0.2], rtol=1e-6)
    assert np.array_equal(weights[1].numpy(), [1, 1])


@pytest.mark.parametrize("argument", ["clipnorm", "global_clipnorm", "clipvalue"])
def test_clipping_twice_is_refused(argument):
    with pytest.raises(ValueError, match=f"{argument}=1.0 was given, expected max_norm= or max_value= only"):
        clipped(Adam)(0.1, max_norm=1.0, **{argument: 1.0})


def test_wrong_arguments():
    for arguments, error, said in [
        ({"max_norm": -1.0}, ValueError, "expected a number >= 0"),
        ({"max_norm": "1"}, TypeError, "max_norm=float"),
        ({"max_norm": policies.ZClip}, TypeError, r"pass ZClip\(\)"),
        ({"max_value": float("nan")}, ValueError, "expected a number >= 0"),
        ({"nonfinite": "error"}, ValueError, "a compiled step raises no errors"),
        ({"nonfinite": "zero", "max_value": 1.0}, ValueError, "a bound makes inf finite"),
        ({"nonfinite": "skip"}, ValueError, "expected one of 'propagate'"),
    ]:
        with pytest.raises(error, match=said):
            clipped(Adam)(0.1, **arguments)
    for given in (Adam(0.1), int, "adam"):
        with pytest.raises(TypeError, match="expected an optimizer class of Keras"):
            clipped(given)
    for wrapper in (keras.optimizers.LossScaleOptimizer, keras.optimizers.MultiOptimizer):
        with pytest.raises(TypeError, match=r"has an apply\(\) of its own, which does not clip"):
            clipped(wrapper)


def test_logs(tmp_path):
    """The norm and the shares are in the history and in the files of callbacks that come after."""
    log, file = ClipLog(), tmp_path / "log.csv"
    model, logs = fit(clipped(Adam)(0.02, max_norm=0.5), callbacks=[log, keras.callbacks.CSVLogger(file)])
    assert log.optimizer is model.optimizer
    assert logs["grad_norm"][-1] == float(model.optimizer.grad_norm)
    assert sum(logs["clipped"]) * 4 == int(model.optimizer.clipped_steps)
    assert file.read_text().startswith("epoch,clipped,grad_norm,loss")
    _, logs = fit(clipped(Adam)(0.02, max_norm=policies.SkipStep(1.5)), callbacks=[ClipLog()])
    assert set(logs) == {"loss", "grad_norm", "clipped", "skipped"}
    with pytest.raises(TypeError, match="expected one of clipped"):
        fit(Adam(0.02), callbacks=[ClipLog()])


@pytest.mark.parametrize("together", [None, 2])
def test_a_monitor_gets_each_step(together):
    monitor = NormMonitor()
    optimizer = clipped(Adam)(0.02, max_norm=0.5, gradient_accumulation_steps=together)
    _, logs = fit(optimizer, callbacks=[ClipLog(monitor)])
    history = monitor.history()
    assert len(history.norm) == (6 if together else 12)
    assert history.norm[-1] == pytest.approx(logs["grad_norm"][-1])
    assert sum(history.clipped) == int(optimizer.clipped_steps)


@pytest.mark.skipif(TORCH, reason="jax.jit takes no step of PyTorch")
def test_under_jit_in_a_loop_of_ones_own():
    import jax

    policy = replace(POLICIES[2], max_norm=1.0)
    clipper, optimizer = gradclip.Clipper(policy), clipped(SGD)(1.0, max_norm=policy)
    weights = [keras.Variable(np.zeros(s, "float32")) for s in ((3,), (2, 2))]
    optimizer.build(weights)
    values, state = [w.value for w in weights], [v.value for v in optimizer.variables]
    apply = jax.jit(optimizer.stateless_apply)
    for grads in steps():
        right, _ = clipper(grads)
        new, state = apply(state, [jax.numpy.asarray(g) for g in grads], values)
        for a, b, g in zip(values, new, right, strict=True):
            np.testing.assert_allclose(a - b, g, rtol=1e-5, atol=2e-6)
        values = new
    assert apply._cache_size() == 1
