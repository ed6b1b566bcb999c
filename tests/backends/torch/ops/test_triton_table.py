"""The table that the kernels in Triton read: pieces cover each tensor once, and the table is kept while they stay."""

import pytest
import torch

from gradclip.backends.torch.ops import _triton_table
from gradclip.backends.torch.ops._triton_table import KEPT, LARGEST, MOST_PIECES, PIECE_BYTES, Table, table_of


def pieces_of(table):
    """Return (address, number of elements, tensor) of each piece."""
    return [row for group in table.groups for row in group.pieces.view(-1, 3).tolist()]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_pieces_cover_each_tensor_once(dtype):
    tensors = [torch.zeros(n, dtype=dtype) for n in (1, 0, 5000, 20_001)]
    table = Table(tensors)
    rows = pieces_of(table)
    assert table.count == len(rows) == sum(group.blocks for group in table.groups)
    for i, x in enumerate(tensors):
        mine = [row for row in rows if row[2] == i]
        place = x.data_ptr()
        for address, count, _ in mine:
            assert address == place
            assert 0 < count * x.element_size() <= PIECE_BYTES
            place += count * x.element_size()
        assert place == x.data_ptr() + x.nbytes


def test_each_tensors_range_of_pieces():
    tensors = [torch.zeros(20_000), torch.zeros(3, dtype=torch.float64), torch.zeros(9)]
    table = Table(tensors)
    rows = pieces_of(table)
    for i, (begin, end) in enumerate(table.ranges.tolist()):
        assert {row[2] for row in rows[begin:end]} == {i}
    assert table.whole.tolist() == [[0, table.count]]
    assert [group.dtype for group in table.groups] == [torch.float32, torch.float64]


def test_a_tensor_that_is_not_aligned_is_in_a_group_of_its_own():
    x = torch.zeros(9)
    assert [group.aligned for group in Table([x, x[1:]]).groups] == [True, False]


def test_pieces_grow_where_there_would_be_too_many():
    table = Table([torch.empty(MOST_PIECES * PIECE_BYTES // 4 + 1, dtype=torch.float32)])
    assert MOST_PIECES // 2 <= table.count <= MOST_PIECES + 1
    assert max(row[1] for row in pieces_of(table)) * 4 <= LARGEST


def test_the_norm_is_float64_if_one_tensor_is():
    assert Table([torch.zeros(1, dtype=torch.float16)]).norm_dtype == torch.float32
    assert Table([torch.zeros(1), torch.zeros(1, dtype=torch.float64)]).norm_dtype == torch.float64


def test_shared_memory_is_seen_by_address():
    x = torch.zeros(8)
    assert Table([x[:4], x[4:], x[:0]]).apart
    assert not Table([x[:5], x[4:]]).apart


def test_a_table_is_kept_while_the_tensors_stay(monkeypatch):
    monkeypatch.setattr(_triton_table, "_tables", type(_triton_table._tables)())
    x = torch.zeros(4)
    first = table_of([x])
    assert table_of([x]) is first
    assert table_of([x[:2]]) is not first
    others = [torch.zeros(4) for _ in range(KEPT)]
    for other in others:
        table_of([other])
    assert len(_triton_table._tables) == KEPT
    assert table_of([x]) is not first


def test_tensors_that_do_not_fit_have_no_table():
    assert table_of([torch.zeros(3)], lambda _: False) is None
