"""Fixed, and Schedule, which is its like for thresholds that change with the step."""

import math

import numpy as np
import pytest

from gradclip.policies import Fixed
from tests.policies.frameworks import assert_same, with_floats
from tests.policies.recorded import spoiled


@with_floats
@pytest.mark.parametrize("max_norm", [1.0, 0.0, math.inf])
def test_the_threshold_stays(max_norm, run):
    assert_same(run, Fixed(max_norm), spoiled(), [max_norm] * len(spoiled()))


def test_arguments():
    assert Fixed(np.float32(0.5)).max_norm == 0.5
    assert type(Fixed(2).max_norm) is float
    with pytest.raises(ValueError, match="max_norm=-1, expected a number >= 0"):
        Fixed(-1)
    with pytest.raises(TypeError, match="max_norm='1' is a str, expected a real number"):
        Fixed("1")
