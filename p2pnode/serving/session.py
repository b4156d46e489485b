"""One hop's part of a session, as rules without I/O or clock.

Everything that changes a session's position, epoch or neighbours is in this file. The rules:
- a step of an older epoch is dropped, one of a later epoch waits for the `Reroute` that is on its
  way; of the current one it must come from ``previous`` or from that hop's standby, to anyone else
  the session does not exist;
- a step that lies wholly below what is accepted is a repeat, its output is sent already; one that
  reaches further truncates to its position; one that begins beyond is a `gap`;
- guesses may turn out wrong: a step of a later branch, or a `Cut`, undoes all from its position on,
  also what is waiting or being computed; a step of an older branch is dropped;
- outputs go to the journal, and from there, from ``cursor`` on, to the next hop: the same way for
  the first time, for a retry, and for the replay to a replacement;
- outputs below ``send_from`` are journalled but not sent: the next hop (or the client) has them.
  A standby's ``send_from`` is beyond the session's end; a `Hedge` makes it speak once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from p2pnode.errors import PeerMisbehaved
from p2pnode.net.link import Link
from p2pnode.serving.job import Job, Output
from p2pnode.serving.journal import Journal, ids_of
from p2pnode.serving.ring import Ring
from p2pnode.types import LayerRange, PeerId
from p2pnode.wire.messages import Reroute, Step

if TYPE_CHECKING:
    from p2pnode.model.block import Block
    from p2pnode.model.cache import KVCache
    from p2pnode.model.chooser import Chooser
    from p2pnode.model.mean import Mean

Key = tuple[bytes, int]
"""(session id, first layer): names one hop of one session."""


class Gap(Exception):
    """A step begins beyond what we hold."""


@dataclass(slots=True)
class Shadowing:
    """The next hop's standby, and how far we have copied our journal to it."""

    link: Link
    cursor: int
    copied_at: float = 0.0


@dataclass(slots=True, kw_only=True, eq=False, weakref_slot=True)
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
    """None: the client, also where it carries outputs on to the next hop. A lost next hop stays
    here, closed, until a `Reroute`."""
    send_from: int
    token_ids: list[int]
    """Tokens so far, on the last hop; read and written by the compute thread only."""
    cache: KVCache
    chooser: Chooser | None = None
    """On the last hop: what chooses tokens, where the client does not do it."""
    mean: Mean | None = None
    """On the last hop: of all rows, for a client that wants that and no token."""
    cursor: int = 0
    """The first position that the next hop has not been sent; never below ``send_from``."""
    accepted: int = 0
    """Positions that were accepted, whether computed or still waiting."""
    position: int = 0
    """Positions that are computed and journalled."""
    branch: int = 0
    settled: int = 0
    """Positions whose tokens are no guesses: a standby may have them."""
    jobs: list[Job] = field(default_factory=list)
    """Accepted and not finished."""
    journal: Journal = field(default_factory=Journal)
    alternate: PeerId | None = None
    """The previous hop's standby, which may step as well."""
    ring: Ring | None = None
    """On the first hop and the last one."""
    shadowing: Shadowing | None = None
    hedged_at: int | None = None
    """On a standby: the output here is to be sent on."""
    early: list[tuple[Link, Step]] = field(default_factory=list)
    """Steps of a later epoch that came before its `Reroute`."""
    active_at: float = 0.0
    reported_at: float = -math.inf
    """When its client was told last how far we are."""
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
        """Whether ours are the last layers: the client gets answers, and nobody a journal."""
        return self.layers.stop == self.block.spec.num_layers

    @property
    def is_standby(self) -> bool:
        """Whether another peer is the hop, and we keep up with it."""
        return self.send_from >= self.max_tokens

    def begin_at(self, position: int, journal: Journal) -> None:
        """So much of it is computed already; the cache holds it. Before any step.

        journal: the rows below ``position`` that this hop has sent in another session
        """
        self.position = self.accepted = self.settled = position
        self.cursor = max(position, self.send_from)
        if not self.ends_chain:
            self.journal.copy_from(journal, position)

    def may_step(self, sender: PeerId, step: Step) -> bool:
        """Whether this step may come from this peer; of other epochs another rule decides."""
        if step.epoch != self.epoch or sender == self.alternate:
            return True
        if self.ring is not None and self.layers.start == 0 and sender == self.ring.peer:
            return True
        return sender == (self.previous or self.client.peer)

    def keep_early(self, link: Link, step: Step) -> bool:
        """Keep a step of a later epoch until its `Reroute`; False when it is not one."""
        if step.epoch <= self.epoch:
            return False
        self.early = [(from_, kept) for from_, kept in self.early if kept.epoch >= step.epoch]
        num_tokens = sum(kept.entry.shape[0] for _, kept in self.early)
        if num_tokens + step.entry.shape[0] <= self.max_tokens:
            self.early.append((link, step))
        return True

    def accept(self, step: Step, sender: PeerId, *, now: float) -> Job | None:
        """Take a step that its sender may send; None for a repeat or one of another epoch.

        Raises Gap, Differs, and PeerMisbehaved for more tokens than the session may hold.
        """
        if step.epoch != self.epoch or step.branch < self.branch:
            return None
        ring = self.ring if self.layers.start == 0 else None
        if ring is not None and not ring.takes(step, sender, self):
            return None
        stop = step.position + step.entry.shape[0]
        if step.position > self.accepted:
            if sender == self.alternate:
                return None  # the hop that it stands by for will tell us all of it
            raise Gap
        if stop > self.max_tokens:
            what = f"position {stop} of a session of {self.max_tokens} tokens"
            raise PeerMisbehaved(sender, what)
        if step.branch > self.branch:
            self.cut(step.branch, step.position)
        self.settled = max(self.settled, stop - step.num_guessed)
        self.active_at = now
        if stop <= self.accepted:
            return None
        self.accepted = stop
        job = Job(self, self.epoch, step.position, step.entry, now)
        self.jobs = [each for each in self.jobs if not each.is_void]
        self.jobs.append(job)
        return job

    def cut(self, branch: int, position: int) -> None:
        """Undo what is held, waits or is being computed from ``position`` on, for a new branch.

        Nothing is done where less is held: earlier steps are on their way, and the new branch's
        own step will come after them.
        """
        if branch <= self.branch or position > self.accepted:
            return
        self.branch = branch
        for job in self.jobs:
            job.stop = min(job.stop, position)
        self.accepted = position
        self.position = min(self.position, position)
        self.journal.truncate(self.position)
        self.cursor = min(self.cursor, max(position, self.send_from))
        if self.shadowing is not None:
            self.shadowing.cursor = min(self.shadowing.cursor, position)
        if self.hedged_at is not None and self.hedged_at >= position:
            self.hedged_at = None
        if self.ring is not None:
            self.ring.cut(position)

    def fail(self, job: Job) -> None:
        """A job made nothing: its step may come again."""
        self.accepted = min(self.accepted, job.position)
        for each in self.jobs:  # those behind it would only find a gap
            each.stop = min(each.stop, job.position)
        self._forget(job)

    def _forget(self, job: Job) -> None:
        self.jobs = [each for each in self.jobs if each is not job]

    def finish(self, job: Job, output: Output) -> bool:
        """Note a job's output, less what was cut off meanwhile; False when all of it is void."""
        self._forget(job)
        if job.is_void:
            return False
        self.position = job.stop
        output.cut(job.stop)
        if not self.ends_chain and output.hidden is not None:
            self.journal.put(job.position, output.hidden)
            self.cursor = min(self.cursor, max(job.position, self.send_from))
            if self.shadowing is not None:
                self.shadowing.cursor = min(self.shadowing.cursor, job.position)
        return True

    def unsent(self, chunk_tokens: int) -> Iterator[Step]:
        """The steps that the next hop has not been sent yet; moves the cursor."""
        start = self.cursor
        if start < self.journal.end:
            self.cursor = self.journal.end
            yield from self._steps(start, chunk_tokens)

    def hedged(self) -> Iterator[Step]:
        """On a standby that shall speak: its output at ``hedged_at``, once it is there."""
        start = self.hedged_at
        if start is not None and start < self.journal.end:
            self.hedged_at = None
            yield from self._steps(start, self.max_tokens)

    def uncopied(self, max_tokens: int, *, leave: int) -> Iterator[Step]:
        """The next step for the next hop's standby, or none.

        All but the last ``leave`` rows, and, unless it shall have all, no guesses.
        """
        copy = self.shadowing
        stop = min(self.journal.end - leave, self.settled) if leave else self.journal.end
        if copy is None or not self.journal.start <= copy.cursor < stop:
            return
        start, copy.cursor = copy.cursor, min(stop, copy.cursor + max_tokens)
        yield next(self._steps(start, copy.cursor - start))

    def _steps(self, start: int, chunk_tokens: int) -> Iterator[Step]:
        for position, hidden in self.journal.chunks(start, chunk_tokens):
            yield Step(
                session=self.id,
                layer=self.layers.stop,
                epoch=self.epoch,
                branch=self.branch,
                position=position,
                num_guessed=max(0, position + hidden.shape[0] - self.settled),
                entry=hidden,
            )

    def reroute(self, message: Reroute, next_link: Link | None, *, now: float) -> None:
        """Adopt the new configuration: epoch, neighbours, position, and what to send again."""
        self.epoch, self.branch = message.epoch, 0
        self.previous = message.previous
        self.next = next_link
        self.position = self.accepted = min(self.position, message.position)
        self.settled = min(self.settled, self.position)
        self.jobs.clear()
        self.journal.truncate(self.position)
        self.send_from = self.cursor = message.send_from
        self.alternate = self.shadowing = self.hedged_at = None
        self.ring = Ring(message.ring) if message.ring else None
        if message.token_ids is not None:
            self.token_ids = ids_of(message.token_ids)
        self.active_at = now

    @property
    def replays_from(self) -> int:
        """The first position whose output can be sent again."""
        return 0 if self.ends_chain else self.journal.start
