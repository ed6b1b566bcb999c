"""The table of pieces: what the kernels will read, for arrays that no machine here could hold."""

import ctypes

import numpy as np
import pytest

from gradclip._limits import LARGEST_PIECE_NBYTES, MOST_PIECES, PIECE_NBYTES
from gradclip.backends.cupy._places import Place, places_of
from gradclip.backends.cupy._result import PARTIAL_BYTES, RESULT_BYTES
from gradclip.backends.cupy._table import PIECE, table_of
from tests.backends.cupy.emulated import library, needs_compiler


def dense(address: int, size: int, dtype: str = "float32", width: int = 4) -> Place:
    return Place(address, (size,), None, dtype, width)


def test_pieces_cover_each_leaf_once():
    places = [dense(4096, 100_000), dense(1 << 20, 0), dense(1 << 21, 5), dense(1 << 22, 70_000, "float16", 2)]
    table = table_of(places, places)
    assert [group.code for group in table.groups] == [16, 32]
    assert sum(group.blocks for group in table.groups) == len(table.pieces)
    for i, place in enumerate(places):
        begin, end = table.ranges[i]
        mine = table.pieces[begin:end]
        assert (mine["leaf"] == i).all()
        assert mine["count"].sum() == place.numel
        assert (mine["source"] == place.address + mine["start"].astype("u8") * np.uint64(place.width)).all()
        assert (mine["source"] == mine["target"]).all()
        assert (mine["count"] * place.width <= PIECE_NBYTES).all()


def test_pieces_grow_where_there_would_be_too_many():
    place = dense(1 << 44, 1 << 27)
    assert MOST_PIECES // 2 < len(table_of([place], [place]).pieces) <= MOST_PIECES


def test_more_than_two_to_the_31_elements():
    place = dense(1 << 44, 5 << 31, "bfloat16", 2)
    table = table_of([place], [place])
    assert len(table.pieces) == (5 << 32) // LARGEST_PIECE_NBYTES
    assert table.pieces["count"].astype(np.int64).sum() == 5 << 31
    last = table.pieces[-1]
    assert int(last["source"]) + int(last["count"]) * 2 == (1 << 44) + (5 << 32)
    assert table.nbytes < 4 << 20


def test_a_piece_begins_where_accesses_of_16_bytes_may():
    place = dense(4096, 1_000_000, "float64", 8)
    table = table_of([place], [place])
    assert (table.pieces["source"] % 16 == 0).all()


def test_leaves_with_gaps_have_a_layout():
    x = np.zeros((4, 6, 8), np.float32)
    places = places_of(
        tuple((v.ctypes.data, v.shape, v.strides, v.dtype, 0) for v in (x.T, x[:, ::2], x[::-1], x[:, :1]))
    )
    assert [place.dense() is not None for place in places.items] == [True, False, True, False]
    table = table_of(places.items, places.items)
    assert table.layouts.tolist()[:4] == [3, 4, 3, 8]
    where = table.bytes_at(1 << 40)[: table.pieces.nbytes].view(PIECE)
    layouts = (1 << 40) + table.ranges_at + table.ranges.nbytes
    assert where["layout"].tolist() == [0, layouts, 0, layouts + 80]


def test_sizes_are_those_of_the_kernels_structs():
    class Piece(ctypes.Structure):
        _fields_ = [(n, ctypes.c_uint64) for n in ("source", "target", "layout")] + [
            ("start", ctypes.c_int64), ("count", ctypes.c_int), ("leaf", ctypes.c_int)
        ]  # fmt: skip

    class Result(ctypes.Structure):
        _fields_ = [(n, ctypes.c_double) for n in ("scale", "total", "norm", "divisor", "factor")] + [
            ("narrow", ctypes.c_float), ("changed", ctypes.c_bool), ("zeroed", ctypes.c_bool)
        ]  # fmt: skip

    assert PIECE.itemsize == ctypes.sizeof(Piece)
    assert [PIECE.fields[n][1] for n in PIECE.names] == [getattr(Piece, n).offset for n in PIECE.names]
    assert ctypes.sizeof(Result) == RESULT_BYTES
    assert PARTIAL_BYTES == 16
    assert [getattr(Result, n).offset for n in ("norm", "divisor", "factor", "narrow", "changed", "zeroed")] == [
        16, 24, 32, 40, 44, 45
    ]  # fmt: skip


@needs_compiler
def test_elements_beyond_two_to_the_31_are_reached(compiled):
    """A view of 2³⁵ elements in which only the last axis has steps: offsets are right beyond 32 bits."""
    x = np.array([1.0, 2.0, 4.0, 8.0], np.float32)
    layout = np.array([2, 1 << 33, 4, 0, 1, 0, 1], np.int64)
    piece = np.zeros(1, PIECE)
    piece["source"] = piece["target"] = x.ctypes.data
    piece["layout"], piece["start"], piece["count"] = layout.ctypes.data, (1 << 34) + 2, 3
    out = np.empty(2)
    library(compiled, 32, 0).host_partials_one(
        1, 32, ctypes.c_int64(piece.ctypes.data), ctypes.c_int64(out.ctypes.data), ctypes.c_double(1)
    )
    assert out.tolist() == [1.0, 4.0 + 8.0 + 1.0]


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_numbers_are_pairs(dtype):
    width = np.dtype(dtype).itemsize
    place = Place(4096, (100,), None, dtype, width)
    table = table_of([place], [place])
    assert table.pieces["count"].tolist() == [200]
    assert table.groups[0].code == 4 * width
    gaps = Place(4096, (10,), (2 * width,), dtype, width)
    assert table_of([gaps], [gaps]).layouts.tolist() == [2, 10, 2, 4, 1, 4, 1]
