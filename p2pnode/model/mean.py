"""The mean of a text's last hidden states, from the pieces in which they come."""

from __future__ import annotations

import torch

from p2pnode.errors import ComputeFailed


class Mean:
    """Of one session, whose rows come in order; one at position 0 begins anew.

    Sums are in float64, so that pieces do not matter.
    """

    def __init__(self) -> None:
        self._num_tokens = 0
        self._sum: torch.Tensor | None = None

    def add(self, position: int, rows: torch.Tensor) -> None:
        """The rows from ``position`` on, [tokens, hidden_size]; raises ComputeFailed on a gap."""
        if position == 0:
            self._num_tokens, self._sum = 0, None
        if position != self._num_tokens:
            what = f"a mean of {self._num_tokens} tokens cannot go on at {position}"
            raise ComputeFailed(what)
        total = rows.detach().to("cpu", torch.float64).sum(0)
        self._sum = total if self._sum is None else self._sum + total
        self._num_tokens += len(rows)

    def value(self) -> torch.Tensor:
        """float32 [hidden_size]; of one row at least."""
        if self._sum is None:
            raise ComputeFailed("the mean of nothing")
        return (self._sum / self._num_tokens).float()
