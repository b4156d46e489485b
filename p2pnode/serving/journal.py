"""What a hop has sent, or will send, to the next one: kept for the life of the session."""

from __future__ import annotations

from collections.abc import Iterator

from p2pnode.types import Tensor


class Journal:
    """Output rows of positions ``0 .. end - 1``, append-only but for truncation.

    This is upstream backup (Hwang et al., "High-availability algorithms for distributed stream
    processing", 2005): the sender keeps its output, so that a replacement of the receiver can be
    rebuilt without asking anyone further up. The bytes were counted when the session was admitted.
    """

    def __init__(self) -> None:
        self._pieces: list[tuple[int, Tensor]] = []
        self.end = 0

    def put(self, position: int, hidden: Tensor) -> None:
        """Append [tokens, hidden_size] at ``position``; what was there and after it is replaced."""
        self.truncate(position)
        self._pieces.append((position, hidden))
        self.end = position + hidden.shape[0]

    def truncate(self, position: int) -> None:
        """Forget the rows from ``position`` on."""
        while self._pieces and self._pieces[-1][0] >= position:
            self._pieces.pop()
        if self._pieces:
            start, hidden = self._pieces[-1]
            if start + hidden.shape[0] > position:
                self._pieces[-1] = (start, rows(hidden, 0, position - start))
        self.end = min(self.end, position)

    def chunks(self, start: int, max_tokens: int) -> Iterator[tuple[int, Tensor]]:
        """The rows from ``start`` on as (position, [<= max_tokens, hidden_size])."""
        waiting: list[Tensor] = []
        at, held = start, 0
        for piece_start, piece in self._pieces:
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
