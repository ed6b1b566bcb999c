"""TensorFlow and tinygrad: the error for their arrays says what to use, and that works."""

import doctest
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gradclip

ROOT = Path(__file__).parents[2]
CLIPS = {
    "clip_by_global_norm": lambda grads: gradclip.clip_by_global_norm(grads, 1.0),
    "clip_by_global_norm_": lambda grads: gradclip.clip_by_global_norm_(grads, 1.0),
    "clip_by_value": lambda grads: gradclip.clip_by_value(grads, 1.0),
    "global_norm": gradclip.global_norm,
}


def tensorflow():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return pytest.importorskip("tensorflow", reason="TensorFlow is not installed; `make frameworks` installs it")


@pytest.mark.parametrize("kind", ["tensor", "variable", "slices"])
@pytest.mark.parametrize("name", CLIPS)
def test_tensors_of_tensorflow_are_refused_with_what_to_use(name, kind):
    tf = tensorflow()
    tensor = tf.constant([3.0, 4.0])
    grad = {"tensor": tensor, "variable": tf.Variable(tensor), "slices": tf.IndexedSlices(tensor, tf.constant([0, 1]))}
    said = r"grads\['w'\] is an? \w+, expected an array, .*; use tf.clip_by_global_norm\(\) or Keras's global_clipnorm="
    with pytest.raises(TypeError, match=said):
        CLIPS[name]({"w": grad[kind]})


def test_what_the_error_for_tensorflow_says_works():
    tf = tensorflow()
    tensor = tf.constant([3.0, 4.0])
    clipped, norm = gradclip.clip_by_global_norm([tensor.numpy()], 1.0)
    (theirs,), _ = tf.clip_by_global_norm([tensor], 1.0)
    np.testing.assert_allclose(clipped[0], theirs.numpy(), rtol=1e-6)
    assert norm == 5


def test_keras_on_tensorflow_is_told_what_to_use():
    tensorflow()
    pytest.importorskip("keras", reason="Keras is not installed; `make frameworks` installs it")
    code = "import keras; from gradclip.backends.keras import clipped; clipped(keras.optimizers.Adam)"
    env = {**os.environ, "KERAS_BACKEND": "tensorflow", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert "RuntimeError: Keras's backend is 'tensorflow', expected 'torch' or 'jax'" in done.stderr
    assert "pass global_clipnorm= to Keras's own optimizer" in done.stderr


def test_tensors_of_tinygrad_are_refused_with_what_to_use(monkeypatch):
    monkeypatch.setenv("DEV", "PYTHON")  # its other devices need a compiler
    tinygrad = pytest.importorskip("tinygrad", reason="tinygrad is not installed; `make frameworks` installs it")
    tensor = tinygrad.Tensor([3.0, 4.0])
    with pytest.raises(TypeError, match=r"grads\[0\] is a Tensor, .*; pass x.numpy\(\), and make a Tensor"):
        gradclip.clip_by_global_norm([tensor], 1.0)
    (clipped,), _ = gradclip.clip_by_global_norm([tensor.numpy()], 1.0)
    np.testing.assert_allclose(tinygrad.Tensor(clipped).numpy(), [0.6, 0.8], rtol=1e-6)


def test_the_page_in_docs():
    tensorflow()
    failed, attempted = doctest.testfile(str(ROOT / "docs/integrations/tensorflow.md"), module_relative=False)
    assert (failed, attempted > 0) == (0, True)
