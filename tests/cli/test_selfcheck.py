"""The self-check meets the golden vectors, and notices results that are a little wrong."""

import re
from dataclasses import replace

import numpy as np
import pytest

from gradclip._cli import selfcheck


@pytest.mark.parametrize("name", ["numpy", "torch", "jax", "optax"])
def test_each_adapter_meets_its_vectors(name):
    text = selfcheck.check(name)
    assert (
        int(re.match(r"(\d+) exact results are met", text)[1])
        >= {"numpy": 140, "torch": 160, "jax": 30, "optax": 8}[name]
    )


def test_without_a_gpu_it_is_absent():
    import torch

    if not torch.cuda.is_available():
        with pytest.raises(selfcheck.AbsentError, match="no GPU found"):
            selfcheck.check("torch, GPU")


@pytest.mark.parametrize("factor", [1 + 2e-6, -1.0, np.nan])
def test_a_result_that_is_a_little_wrong_is_noticed(monkeypatch, factor):
    right = selfcheck.CHECKS["numpy"]()
    monkeypatch.setitem(selfcheck.CHECKS, "numpy", lambda: replace(right, read=lambda x: right.read(x) * factor))
    with pytest.raises(AssertionError, match=r"\d+ of \d+ exact results are not met; the first: "):
        selfcheck.check("numpy")


def test_units_in_the_last_place_are_those_of_numpy():
    for dtype in ("float16", "float32", "float64"):
        values = np.array([1.0, 1.5, 3e-5, 6e-8, 60000.0, 0.0], dtype)
        assert selfcheck._ulp(values.astype(np.float64), dtype).tolist() == np.spacing(values).tolist()
