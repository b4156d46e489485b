"""One accepted step on its way through the compute thread, and what it made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from p2pnode.serving.journal import rows
from p2pnode.types import Chosen, PeerId, Tensor

if TYPE_CHECKING:
    from p2pnode.model.block import Block
    from p2pnode.serving.session import HopSession


@dataclass(slots=True)
class Job:
    """One accepted step on its way through the compute thread."""

    session: HopSession
    epoch: int
    position: int
    entry: Tensor
    submitted_at: float
    stop: int = field(init=False)
    """Its positions from here on were cut off since it was accepted."""

    def __post_init__(self) -> None:
        self.stop = self.position + self.entry.shape[0]

    @property
    def is_void(self) -> bool:
        """Whether the chain, or all of its tokens, has changed since: nobody waits for it."""
        session = self.session
        is_cut = self.stop <= self.position
        return is_cut or session.is_closed or self.epoch != session.epoch

    @property
    def is_lazy(self) -> bool:
        """Whether it only keeps a standby up to date, and any other job goes first."""
        return self.session.is_standby and self.session.hedged_at is None

    @property
    def num_tokens(self) -> int:
        """What is left to compute."""
        return self.stop - self.position

    @property
    def client(self) -> PeerId:
        """Whose session it is."""
        return self.session.client.peer

    @property
    def block(self) -> Block:
        """The layers to run."""
        return self.session.block

    def split(self, num_tokens: int) -> Job:
        """Make the first tokens a job of its own; the others stay this one."""
        piece = Job(
            self.session,
            self.epoch,
            self.position,
            rows(self.entry, 0, num_tokens),
            self.submitted_at,
        )
        piece.stop = min(piece.stop, self.stop)
        self.entry = rows(self.entry, num_tokens, self.entry.shape[0])
        self.position += num_tokens
        self.session.jobs.append(piece)
        return piece

    @property
    def send_from(self) -> int:
        """The first position whose output somebody waits for."""
        hedged_at, wanted = self.session.hedged_at, self.session.send_from
        if hedged_at is not None and hedged_at < self.position + self.entry.shape[0]:
            wanted = min(wanted, hedged_at)
        return max(self.position, wanted)


@dataclass(slots=True)
class Output:
    """What a job made: hidden [tokens, hidden_size], or tokens from ``position`` on; or a mean.

    A mean is of all rows up to there, [hidden_size].
    """

    position: int
    hidden: Tensor | None = None
    chosen: tuple[Chosen, ...] = ()

    @property
    def token_ids(self) -> tuple[int, ...]:
        """Of what was chosen."""
        return tuple([each.token_id for each in self.chosen])

    @property
    def num_bytes(self) -> int:
        """Of the hidden states."""
        return 0 if self.hidden is None else self.hidden.num_bytes

    def cut(self, stop: int) -> None:
        """Leave out the positions from ``stop`` on."""
        num_rows = max(0, stop - self.position)
        self.chosen = self.chosen[:num_rows]
        if (
            self.hidden is not None
            and len(self.hidden.shape) == 2
            and num_rows < self.hidden.shape[0]
        ):
            self.hidden = rows(self.hidden, 0, num_rows) if num_rows else None
