"""Host arrays that speak DLPack take NumPy's way, through views, and come back as what they were."""

import math

import numpy as np
import pytest

import gradclip
from gradclip._dlpack_ops import DLPackOps
from gradclip._tree import flatten

strict = pytest.importorskip("array_api_strict")


@pytest.mark.parametrize("device", strict.__array_namespace_info__().devices())
def test_arrays_of_the_standard_on_every_device(device):
    grads = [strict.asarray([3.0, 0.0], dtype=strict.float32, device=device), strict.asarray(
        4.0, dtype=strict.float32, device=device)]  # fmt: skip
    assert isinstance(flatten(grads).ops, DLPackOps)
    norm = gradclip.clip_by_global_norm_(grads, 1.0)
    assert norm.device == device
    assert float(norm) == 5
    np.testing.assert_allclose([float(grads[0][0]), float(grads[1])], [0.6, 0.8], rtol=1e-6)
    with pytest.raises(ValueError, match=r"grads\[0\] and grads\[1\] overlap"):
        gradclip.clip_by_global_norm_([grads[0], grads[0][:1]], 0.1)


@pytest.mark.parametrize("ord", [1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("value", [0.0, 1e-38, 1e-20, 1.0, 1e20, 3e38, math.inf, math.nan])
def test_partials_fit_float32(value, ord):
    """Some devices have no float64."""
    leaf = strict.full(4, value, dtype=strict.float32, device=strict.Device("no_float64"))
    partial = gradclip.norm_partial(leaf, ord=ord)
    assert partial.total.dtype == partial.scale.dtype == strict.float32
    norm = float(partial.scale) * float(partial.total) ** (1 / ord if ord < math.inf else 1)
    assert norm == pytest.approx(value * 4 ** (1 / ord), rel=1e-6, nan_ok=True)
    assert math.isfinite(float(partial.total)) == math.isfinite(value)
