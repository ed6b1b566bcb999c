"""`Transfer`: numbers of any framework come to the host in the order of rows."""

import math

import numpy as np
import pytest

from gradclip.monitor._row import Row, reduced, snapshot
from gradclip.monitor._transfer import Transfer


def test_floats_and_arrays_of_numpy_are_there_at_once():
    rows = [Row(i, {"norm": np.float32(i), "clipped": i > 0}, ("a", "b"), [np.array([i, 2.0 * i])]) for i in range(3)]
    transfer = Transfer(rows)
    assert transfer.is_done
    known = transfer.finish()
    assert [row.step for row in known] == [0, 1, 2]
    assert known[2][:3] == (2, {"norm": 2.0, "clipped": 1.0}, ("a", "b"))
    assert known[2].norms.tolist() == [2.0, 4.0]
    assert all(type(value) is float for value in known[2].numbers.values())


def test_arrays_of_jax_wait_for_the_end():
    jnp = pytest.importorskip("jax.numpy")
    rows = [
        Row(
            i,
            {"norm": jnp.float32(i + 0.5), "loss": 2.0, "clipped": jnp.array(i > 0)},
            ("a", "b"),
            [jnp.arange(2.0) + i],
        )
        for i in range(4)
    ]
    transfer = Transfer(rows)
    assert not transfer.is_done
    known = transfer.finish()
    assert [row.numbers for row in known] == [{"norm": i + 0.5, "loss": 2.0, "clipped": float(i > 0)} for i in range(4)]
    assert [row.norms.tolist() for row in known] == [[float(i), 1.0 + i] for i in range(4)]


def test_tensors_of_a_host_are_read():
    torch = pytest.importorskip("torch")
    rows = [Row(0, {"norm": torch.tensor(3.0), "clipped": torch.tensor(True)}, ("a",), [torch.tensor(2.0)])]
    (known,) = Transfer(rows).finish()
    assert known[:3] == (0, {"norm": 3.0, "clipped": 1.0}, ("a",))
    assert known.norms.tolist() == [2.0]


def test_numbers_of_16_bits_are_read():
    torch = pytest.importorskip("torch")
    rows = [Row(0, {"norm": torch.tensor(3.0, dtype=torch.bfloat16)}, ("a", "b"), [torch.ones(2).bfloat16()])]
    (known,) = Transfer(rows).finish()
    assert known.numbers == {"norm": 3.0}
    assert known.norms.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("name", "values", "wanted"),
    [
        ("norm", [3.0], 3.0),
        ("norm", [3.0, 4.0], 5.0),
        ("coefficient", [0.5, 0.1, 1.0], 0.1),
        ("max_norm", [2.0, 1.0], 1.0),
        ("clipped", [0.0, 1.0], 1.0),
        ("skipped", [0.0, 0.0], 0.0),
    ],
)
def test_numbers_of_several_groups_become_one(name, values, wanted):
    assert reduced(name, values) == wanted


def test_no_number_is_nan():
    assert math.isnan(reduced("norm", []))


@pytest.mark.parametrize("make", ["numpy", "torch", "jax.numpy"])
def test_a_snapshot_does_not_change_with_its_array(make):
    xp = pytest.importorskip(make)
    x = xp.asarray([1.0])
    copy = snapshot(x)
    if make != "jax.numpy":
        x[0] = 2.0
    else:
        x.delete()
    assert float(copy[0]) == 1
