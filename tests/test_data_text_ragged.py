"""Tests of rows of different lengths."""

import numpy as np
import pytest

from dltoolkit.data.text.ragged import Ragged


def make_ragged(*rows):
    values = [value for row in rows for value in row]
    return Ragged.from_row_lengths(np.array(values, np.int32), np.array([len(row) for row in rows]))


def to_lists(ragged):
    return [row.tolist() for row in np.split(ragged.values, ragged.row_splits[1:-1])]


ROWS = ([1, 2, 3], [], [4], [5, 6])


def test_take_returns_rows_in_any_order():
    ragged = make_ragged(*ROWS)
    assert len(ragged) == 4
    assert ragged.lengths.tolist() == [3, 0, 1, 2]
    assert to_lists(ragged.take(np.array([3, 1, 0, 3]))) == [[5, 6], [], [1, 2, 3], [5, 6]]


def test_sort_by_length_is_stable():
    assert make_ragged([1, 2], [3], [4, 5], [6]).sort_by_length(np.array([2, 0, 3, 1])).tolist() == [3, 1, 2, 0]


@pytest.mark.parametrize(
    ("max_length", "expected"),
    [(4, [[0, 7, 8, 9], [20, 21]]), (8, [[0, 1, 4, 5, 6, 7, 8, 9], [20, 21]]), (10, [list(range(10)), [20, 21]])],
)
def test_truncate_middle_keeps_a_quarter_of_the_beginning_and_the_end(max_length, expected):
    rows = make_ragged(list(range(10)), [20, 21]).truncate_middle(max_length)
    assert to_lists(rows) == expected
    assert rows.truncated == (max_length < 10)


def test_to_padded_appends_zeros():
    assert make_ragged(*ROWS).to_padded().tolist() == [[1, 2, 3], [0, 0, 0], [4, 0, 0], [5, 6, 0]]
    assert make_ragged([]).to_padded().tolist() == [[0]]
