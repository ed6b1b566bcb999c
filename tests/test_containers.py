"""An adapter that overrides `Containers` alone has every public function for its own containers."""

import numpy as np
import pytest

from gradclip._containers import Containers
from gradclip._functions import Functions
from gradclip._tree import flatten


class Box:
    """An object that holds an array, as a framework's parameter holds its gradient."""

    def __init__(self, *values):
        self.grad, self.data = np.asarray(values), np.full(len(values), 2.0)


class Boxes(Functions):
    """Public functions on lists of `Box`. Calls of its methods are recorded."""

    def __init__(self):
        self.calls = []

    def leaves(self, grads):
        self.calls.append("leaves")
        return flatten([box.grad for box in grads])

    def leaves_(self, grads, caller):
        self.calls.append(caller)
        return flatten([box.grad for box in grads])

    def measured(self, grads, *, weights):
        self.calls.append(f"measured, weights={weights}")
        return flatten([box.grad for box in grads])

    def params(self, params, grads):
        self.calls.append("params")
        return flatten([box.data for box in params], "params", distinct=False)

    def units(self, axis):
        return 0 if axis is None else axis


@pytest.fixture
def boxes():
    return [Box(3.0), Box(0.0, 4.0)]


def test_pure_functions_take_the_leaves(boxes):
    functions = Boxes()
    clipped, norm = functions.clip_by_global_norm(boxes, 1.0)
    assert float(norm) == 5
    np.testing.assert_allclose(np.concatenate(clipped), [0.6, 0.0, 0.8], rtol=1e-15)
    assert [x.tolist() for x in functions.clip_by_value(boxes, 2.0)] == [[2.0], [0.0, 2.0]]
    assert functions.calls == ["leaves", "leaves"]


def test_functions_in_place_say_who_calls(boxes):
    functions = Boxes()
    functions.clip_by_norm_(boxes, 1.0)
    functions.clip_by_global_norm_(boxes, 1.0)
    assert functions.calls == ["clip_by_norm_", "clip_by_global_norm_"]
    np.testing.assert_allclose(np.concatenate([box.grad for box in boxes]), [0.5**0.5, 0, 0.5**0.5], rtol=1e-15)


def test_norms_say_whether_they_take_weights(boxes):
    functions = Boxes()
    assert float(functions.global_norm(boxes)) == 5
    assert [float(x) for x in functions.leaf_norms(boxes)] == [3, 4]
    assert functions.norm_partial(boxes).norm() == 5
    assert functions.calls == [f"measured, weights={w}" for w in (True, True, False)]


def test_adaptive_clipping_takes_the_parameters_and_the_adapter_s_units(boxes):
    functions = Boxes()
    clipped = functions.adaptive_grad_clip(boxes, boxes, 0.5)
    assert functions.calls[:2] == ["leaves", "params"]
    np.testing.assert_allclose(clipped[1], [0.0, 2**0.5], err_msg="half of the norm of its parameters, 2 and 2")


def test_the_core_itself_takes_containers_of_arrays():
    core, grads = Containers(), {"w": np.asarray([3.0, 4.0])}
    for leaves in (core.leaves(grads), core.leaves_(grads, ""), core.measured(grads, weights=True)):
        assert [x.tolist() for x in leaves.arrays] == [[3.0, 4.0]]
        assert leaves.paths() == ["grads['w']"]
    assert core.params({"w": np.ones(2)}, leaves).paths() == ["params['w']"]
    assert (core.units(None), core.units((0, 1))) == (None, (0, 1))


def test_tied_parameters_stay_at_each_position():
    tied = np.ones(2)
    core = Containers()
    assert len(core.leaves([tied, tied]).arrays) == 1
    assert len(core.params([tied, tied], core.leaves([tied, tied])).arrays) == 2
