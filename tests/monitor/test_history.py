"""`History`: what its arrays have to be."""

import numpy as np
import pytest

from gradclip.monitor import History


def test_its_length_is_the_number_of_steps():
    assert len(History(np.arange(3), np.ones(3), parameters={"w": np.ones(3)})) == 3


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"norm": [1.0, 2.0]}, TypeError, "norm is a list, expected a NumPy array"),
        ({"norm": np.ones(3)}, ValueError, r"norm has the shape \(3,\), expected \(2,\)"),
        ({"loss": np.ones((2, 1))}, ValueError, r"loss has the shape \(2, 1\), expected \(2,\)"),
        ({"parameters": {"w": np.ones(1)}}, ValueError, r"parameters\['w'\] has the shape \(1,\)"),
        ({"parameters": [np.ones(2)]}, TypeError, "parameters is a list, expected a dict of arrays"),
    ],
)
def test_arrays_of_another_shape_are_refused(fields, error, words):
    with pytest.raises(error, match=words):
        History(**{"step": np.arange(2), "norm": np.ones(2), **fields})
