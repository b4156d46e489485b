"""The journal gives back what was put in, in any chunks, after any truncation."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from p2pnode.serving.journal import Journal
from p2pnode.types import Tensor


def rows_of(values: list[int]) -> Tensor:
    """[tokens, 2] float32, each row marked by its value."""
    return Tensor("float32", (len(values), 2), b"".join(bytes([value]) * 8 for value in values))


def read(journal: Journal, start: int, chunk: int) -> list[int]:
    """The marks of all rows from ``start`` on, checking the positions on the way."""
    marks, at = [], start
    for position, hidden in journal.chunks(start, chunk):
        assert position == at
        assert hidden.shape[0] <= chunk
        at += hidden.shape[0]
        data = bytes(hidden.data)
        marks += [data[8 * row] for row in range(hidden.shape[0])]
    return marks


puts = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 5)), max_size=12)


@given(puts, st.integers(0, 20), st.integers(1, 6), st.integers(0, 70))
def test_a_journal_is_a_list_of_rows(
    puts: list[tuple[int, int]], start: int, chunk: int, cut: int
) -> None:
    journal, model, mark = Journal(), list[int](), 0
    for back, count in puts:
        position = max(0, len(model) - back)
        values = [(mark + index) % 250 for index in range(count)]
        mark += count
        journal.put(position, rows_of(values))
        model[position:] = values
    journal.truncate(cut)
    model = model[:cut]
    assert journal.end == len(model)
    assert read(journal, start, chunk) == model[start:]


def test_a_trimmed_journal_forgets_its_oldest_rows_and_keeps_the_newest_piece() -> None:
    journal = Journal()
    for position in range(6):
        journal.put(position, rows_of([7]))
    piece_bytes = rows_of([7]).num_bytes
    journal.trim(3 * piece_bytes)
    assert (journal.start, journal.end, journal.num_bytes) == (3, 6, 3 * piece_bytes)
    assert [position for position, _ in journal.chunks(3, 8)] == [3]
    assert list(journal.chunks(2, 8)) == [], "the first of them is forgotten"
    journal.trim(0)
    assert (journal.start, journal.end) == (5, 6)


def test_bytes_are_counted_through_truncation() -> None:
    journal = Journal()
    journal.put(0, rows_of([7] * 4))
    journal.put(4, rows_of([7] * 4))
    journal.truncate(6)
    assert journal.num_bytes == rows_of([7] * 6).num_bytes
    journal.truncate(0)
    assert (journal.start, journal.end, journal.num_bytes) == (0, 0, 0)


class WatchedRow(Tensor):
    """A row that counts how often it is looked at."""

    looks = 0

    def __getattribute__(self, name: str) -> Any:
        if name == "shape":
            WatchedRow.looks += 1
        return super().__getattribute__(name)


def test_the_newest_row_is_found_without_a_walk_over_all_others() -> None:
    journal = Journal()
    for position in range(1000):
        journal.put(position, WatchedRow("float32", (1, 2), bytes(8)))
    WatchedRow.looks = 0
    assert [position for position, _ in journal.chunks(998, 8)] == [998]
    assert 0 < WatchedRow.looks < 50
