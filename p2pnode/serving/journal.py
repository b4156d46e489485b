"""What a hop has sent, or will send, to the next one: kept for the life of the session."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import takewhile

from p2pnode.types import Tensor


class Journal:
    """Output rows of positions ``start .. end - 1``, append-only but for truncation.

    This is upstream backup (Hwang et al., "High-availability algorithms for distributed stream
    processing", 2005): the sender keeps its output, so that a replacement of the receiver can be
    rebuilt without asking anyone further up. It may be trimmed to a bound: then the oldest rows
    are gone, and whoever needs them has them computed again by the hops above.
    """

    def __init__(self) -> None:
        self._pieces: deque[tuple[int, Tensor]] = deque()
        self.start = 0
        self.end = 0
        self.num_bytes = 0

    def put(self, position: int, hidden: Tensor) -> None:
        """Append [tokens, hidden_size] at ``position``; what was there and after it is replaced."""
        self.truncate(position)
        if not self._pieces:
            self.start = position
        self._pieces.append((position, hidden))
        self.num_bytes += hidden.num_bytes
        self.end = position + hidden.shape[0]

    def copy_from(self, other: Journal, num_tokens: int) -> None:
        """Begin with the rows below ``num_tokens`` of another one, as far as it has them."""
        self._pieces = deque(other._pieces)
        self.start, self.end, self.num_bytes = other.start, other.end, other.num_bytes
        self.truncate(num_tokens)

    def truncate(self, position: int) -> None:
        """Forget the rows from ``position`` on."""
        while self._pieces and self._pieces[-1][0] >= position:
            self.num_bytes -= self._pieces.pop()[1].num_bytes
        if self._pieces:
            start, hidden = self._pieces[-1]
            if start + hidden.shape[0] > position:
                kept = rows(hidden, 0, position - start)
                self._pieces[-1] = (start, kept)
                self.num_bytes -= hidden.num_bytes - kept.num_bytes
        self.end = min(self.end, position)
        self.start = min(self.start, self.end)

    def trim(self, max_bytes: int) -> None:
        """Forget the oldest rows, piece by piece, until no more bytes than that are held.

        The newest piece stays: it may still be on its way.
        """
        while self.num_bytes > max_bytes and len(self._pieces) > 1:
            self.num_bytes -= self._pieces.popleft()[1].num_bytes
            self.start = self._pieces[0][0]

    def chunks(self, start: int, max_tokens: int) -> Iterator[tuple[int, Tensor]]:
        """The rows from ``start`` on as (position, [<= max_tokens, hidden_size]).

        None when the first of them is forgotten: the rest would only make a gap. Takes no longer
        for what lies before ``start``: most often the newest piece is wanted, of thousands.
        """
        waiting: list[Tensor] = []
        at, held = start, 0
        if start < self.start:
            return
        wanted = takewhile(lambda each: each[0] + each[1].shape[0] > start, reversed(self._pieces))
        for piece_start, piece in reversed(list(wanted)):
            skip = max(0, start - piece_start)
            while skip < piece.shape[0]:
                take = min(piece.shape[0] - skip, max_tokens - held)
                waiting.append(rows(piece, skip, skip + take))
                skip, held = skip + take, held + take
                if held == max_tokens:
                    yield at, joined(waiting)
                    at, held, waiting = at + held, 0, []
        if waiting:
            yield at, joined(waiting)


def rows(hidden: Tensor, start: int, stop: int) -> Tensor:
    """Rows ``start .. stop - 1`` of [tokens, hidden_size], without a copy."""
    if start == 0 and stop == hidden.shape[0]:
        return hidden
    row_bytes = hidden.num_bytes // hidden.shape[0]
    data = memoryview(hidden.data)[start * row_bytes : stop * row_bytes]
    return Tensor(hidden.dtype, (stop - start, *hidden.shape[1:]), data)


def joined(pieces: list[Tensor]) -> Tensor:
    """One tensor of all rows; no copy when there is one piece."""
    if len(pieces) == 1:
        return pieces[0]
    num_rows = sum(piece.shape[0] for piece in pieces)
    data = b"".join(piece.data for piece in pieces)
    return Tensor(pieces[0].dtype, (num_rows, *pieces[0].shape[1:]), data)


def ids_of(tensor: Tensor | None) -> list[int]:
    """The numbers of an int64 [tokens]; none of None."""
    return [] if tensor is None else memoryview(tensor.data).cast("B").cast("q").tolist()
