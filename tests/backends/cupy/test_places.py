"""Where arrays are in memory: equal places, gaps, alignment, devices and overlap, without reading any memory."""

import numpy as np
import pytest

from gradclip.backends.cupy._places import Place, Places, places_of


def dense(address: int, size: int, dtype: str = "float32", width: int = 4, device: int = 0) -> Place:
    return Place(address, (size,), None, dtype, width, device)


def place_of(x: np.ndarray) -> Place:
    return Place(x.ctypes.data, x.shape, x.strides, x.dtype.name, x.itemsize)


def test_contiguous_in_all_but_name():
    for shape, strides in (((1, 5), (99, 4)), ((0, 5), (7, 7)), ((5, 1, 2), (8, 3, 4)), ((), ())):
        (place,) = places_of(((64, shape, strides, np.dtype(np.float32), 0),)).items
        assert place.steps is None
    (place,) = places_of(((64, (5, 2), (16, 4), np.dtype(np.float32), 0),)).items
    assert place.steps == (16, 4)


def test_places_are_the_same_object_while_arrays_stay():
    x = np.zeros(3)
    key = x.ctypes.data, x.shape, x.strides, x.dtype, 0
    assert places_of((key,)) is places_of((key,))
    assert places_of((key,)) is not places_of((key, key))
    assert places_of((key, key)).slots == [0, 0]


def test_overlap_is_seen_without_reading_memory():
    assert Places((dense(4096, 10), dense(4136, 10))).apart
    assert not Places((dense(4096, 10), dense(4132, 10))).apart
    assert not Places((Place(4096, (4, 3), (0, 4), "float32", 4),)).apart


@pytest.mark.parametrize(
    ("view", "is_dense"),
    [
        (lambda x: x, True),
        (lambda x: x.T, True),
        (lambda x: x.transpose(1, 2, 0), True),
        (lambda x: x[1:], True),
        (lambda x: x[..., :1, :], False),
        (lambda x: x[:, ::2], False),
    ],
)
def test_arrays_without_gaps_have_one_run_of_memory(view, is_dense):
    x = view(np.zeros((3, 4, 5), np.float32))
    assert place_of(x).dense() == (x.ctypes.data if is_dense else None)
    assert place_of(x).numel == x.size


def test_an_array_that_is_reversed_begins_at_its_lowest_address():
    x = np.zeros(6)
    assert place_of(x[::-1]).dense() in (x.ctypes.data, None)
    assert place_of(x[::-1]).view().ctypes.data == x[::-1].ctypes.data


@pytest.mark.parametrize(
    ("place", "is_askew"),
    [
        (dense(4096, 3), False),
        (dense(4097, 3), True),
        (dense(4100, 3, "float64", 8), True),
        (dense(4100, 3, "complex64", 8), False),
        (dense(4104, 3, "complex128", 16), False),
        (Place(4096, (3,), (6,), "float32", 4), True),
    ],
)
def test_a_gpu_reads_aligned_elements_only(place, is_askew):
    """A complex number is two elements of half its width."""
    assert Places((dense(64, 1), place)).askew == (1 if is_askew else None)


def test_arrays_are_grouped_by_device_the_first_one_s_first():
    places = Places(tuple(dense(64 * i, 1, device=d) for i, d in enumerate([2, 0, 2, 1, 0])))
    assert places.by_device == [(2, [0, 2]), (0, [1, 4]), (1, [3])]
    assert places.dtypes == {"float32"}


def test_arrays_of_one_place_share_a_slot():
    one, other = dense(64, 4), dense(128, 4)
    assert Places((one, other, one, dense(64, 4, "int32"))).slots == [0, 1, 0, 2]
