"""One hop's part of a session, as rules without I/O or clock.

Everything that changes a session's position, epoch or neighbours is in this file. The rules:
- a step of an older epoch is dropped; of the current one it must come from ``previous``, to
  anyone else the session does not exist;
- a step may begin at or below what is accepted (then the rest is forgotten), never beyond (`gap`);
- outputs go to the journal, and from there, from ``cursor`` on, to the next hop: the same way for
  the first time, for a retry, and for the replay to a replacement;
- outputs below ``send_from`` are journalled but not sent: the next hop (or the client) has them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from p2pnode.errors import PeerMisbehaved
from p2pnode.net.link import Link
from p2pnode.serving.journal import Journal
from p2pnode.types import LayerRange, PeerId, Sampling, Tensor
from p2pnode.wire.messages import Closed, Fault, Progress, Reroute, Result, Step

if TYPE_CHECKING:
    from p2pnode.model.block import Block
    from p2pnode.model.cache import KVCache

Key = tuple[bytes, int]
"""(session id, first layer): names one hop of one session."""


class Gap(Exception):
    """A step begins beyond what we hold."""


@dataclass(slots=True)
class Job:
    """One accepted step on its way through the compute thread."""

    session: HopSession
    epoch: int
    position: int
    entry: Tensor
    submitted_at: float

    @property
    def is_void(self) -> bool:
        """Whether the chain has changed since: nobody waits for it."""
        return self.session.is_closed or self.epoch != self.session.epoch

    @property
    def send_from(self) -> int:
        """The first position whose output somebody waits for."""
        return max(self.position, self.session.send_from)


@dataclass(slots=True)
class Output:
    """What a job made: hidden [tokens, hidden_size], or sampled ids from ``position`` on."""

    position: int
    hidden: Tensor | None = None
    token_ids: tuple[int, ...] = ()


@dataclass(slots=True, kw_only=True)
class HopSession:
    """State of one hop of one session."""

    id: bytes
    block: Block
    """The layers of this hop: the node's block or a part of it."""
    epoch: int
    max_tokens: int
    client: Link
    previous: PeerId | None
    next: Link | None
    """None: the client. A lost next hop stays here, closed, until a `Reroute`."""
    send_from: int
    sampling: Sampling | None
    token_ids: list[int]
    """Tokens so far, on the last hop; read and written by the compute thread only."""
    cache: KVCache
    cursor: int = 0
    """The first position that the next hop has not been sent; never below ``send_from``."""
    accepted: int = 0
    """Positions that were accepted, whether computed or still waiting."""
    position: int = 0
    """Positions that are computed and journalled."""
    journal: Journal = field(default_factory=Journal)
    active_at: float = 0.0
    num_steps: int = 0
    queue_s: float = 0.0
    compute_s: float = 0.0
    is_closed: bool = False

    def __post_init__(self) -> None:
        self.cursor = self.send_from

    @property
    def layers(self) -> LayerRange:
        """The layers of this hop."""
        return self.block.layers

    @property
    def key(self) -> Key:
        """How messages name this hop."""
        return self.id, self.layers.start

    @property
    def ends_chain(self) -> bool:
        """Whether outputs go to the client."""
        return self.next is None

    def may_step(self, sender: PeerId, step: Step) -> bool:
        """Whether this step may come from this peer; one of another epoch is dropped anyway."""
        return step.epoch != self.epoch or sender == (self.previous or self.client.peer)

    def accept(self, step: Step, sender: PeerId, *, now: float) -> Job | None:
        """Take a step that its sender may send, or drop it (None) when it is of another epoch.

        Raises Gap, and PeerMisbehaved for more tokens than the session may hold.
        """
        if step.epoch != self.epoch:
            return None
        tokens = step.entry.shape[0]
        if step.position > self.accepted:
            raise Gap
        if step.position + tokens > self.max_tokens:
            what = f"position {step.position + tokens} of a session of {self.max_tokens} tokens"
            raise PeerMisbehaved(sender, what)
        self.accepted = step.position + tokens
        self.active_at = now
        return Job(self, self.epoch, step.position, step.entry, now)

    def finish(self, job: Job, output: Output) -> bool:
        """Note a job's output; False when the chain has changed meanwhile and it is void."""
        if job.is_void:
            return False
        self.position = job.position + job.entry.shape[0]
        if not self.ends_chain and output.hidden is not None:
            self.journal.put(job.position, output.hidden)
            self.cursor = min(self.cursor, job.send_from)
        return True

    def unsent(self, chunk_tokens: int) -> Iterator[Step]:
        """The steps that the next hop has not been sent yet; moves the cursor."""
        start = self.cursor
        if start >= self.journal.end:
            return
        self.cursor = self.journal.end
        for position, hidden in self.journal.chunks(start, chunk_tokens):
            yield Step(
                session=self.id,
                layer=self.layers.stop,
                epoch=self.epoch,
                position=position,
                entry=hidden,
            )

    def reroute(self, message: Reroute, next_link: Link | None, *, now: float) -> None:
        """Adopt the new configuration: epoch, neighbours, position, and what to send again."""
        self.epoch = message.epoch
        self.previous = message.previous
        self.next = next_link
        self.position = self.accepted = min(self.position, message.position)
        self.journal.truncate(self.position)
        self.send_from = self.cursor = message.send_from
        self.active_at = now

    def result(self, output: Output) -> Result:
        """The answer of the last hop."""
        return Result(
            session=self.id,
            epoch=self.epoch,
            position=output.position,
            token_ids=output.token_ids,
            hidden=output.hidden,
        )

    def progress(self) -> Progress:
        """How far we are, cumulative."""
        return Progress(
            session=self.id,
            layer=self.layers.start,
            epoch=self.epoch,
            position=self.position,
            num_steps=self.num_steps,
            queue_s=self.queue_s,
            compute_s=self.compute_s,
        )

    def closed(self) -> Closed:
        """The last word to the client."""
        return Closed(
            session=self.id,
            layer=self.layers.start,
            num_steps=self.num_steps,
            queue_s=self.queue_s,
            compute_s=self.compute_s,
        )

    def fault(self, fault: str, detail: str, blamed: PeerId | None = None) -> Fault:
        """Why we cannot go on."""
        return Fault(
            session=self.id,
            layer=self.layers.start,
            epoch=self.epoch,
            fault=fault,
            blamed=blamed,
            detail=detail[:500],
        )


def unknown(message: Step | Reroute) -> Fault:
    """The answer about a session that is not ours, or no longer."""
    return Fault(
        session=message.session,
        layer=message.layer,
        epoch=message.epoch,
        fault="unknown",
        blamed=None,
        detail="no such session here",
    )
