"""The rules of one hop's part of a session: epochs, gaps, truncation, what is sent and when."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from p2pnode.errors import PeerMisbehaved
from p2pnode.net.memory import fake_peer_id
from p2pnode.serving.job import Job, Output
from p2pnode.serving.session import Gap, HopSession
from p2pnode.types import LayerRange, PeerId
from p2pnode.wire.messages import Reroute, Step
from tests.support.hostile import SESSION, hidden, step

CLIENT, BEFORE, AFTER, STRANGER = (fake_peer_id(number) for number in range(4))


MIDDLE = LayerRange(3, 6)


class FakeBlock:
    """Has layers of a model of nine, and computes nothing."""

    spec = SimpleNamespace(num_layers=9)

    def __init__(self, layers: LayerRange = MIDDLE) -> None:
        self.layers = layers


class FakeLink:
    """Has a peer at its other end."""

    def __init__(self, peer: PeerId) -> None:
        self.peer = peer
        self.is_open = True


def session(**changes: Any) -> HopSession:
    """A middle hop in epoch 1, with room for 16 tokens."""
    fields: dict[str, Any] = {
        "id": SESSION,
        "block": FakeBlock(),
        "epoch": 1,
        "max_tokens": 16,
        "client": FakeLink(CLIENT),
        "previous": BEFORE,
        "next": FakeLink(AFTER),
        "send_from": 0,
        "token_ids": [],
        "cache": None,
    }
    return HopSession(**{**fields, **changes})


def a_step(position: int, tokens: int, epoch: int = 1) -> Step:
    return step(position, hidden(tokens), layer=3, epoch=epoch)


def run(hop: HopSession, position: int, tokens: int, epoch: int = 1) -> bool:
    """Accept a step and finish it at once."""
    job = hop.accept(a_step(position, tokens, epoch), BEFORE, now=1.0)
    assert job is not None
    return hop.finish(job, Output(position, hidden(tokens, value=position)))


def sent(hop: HopSession, chunk_tokens: int = 8) -> list[tuple[int, int, int]]:
    """(epoch, position, tokens) of what goes to the next hop now."""
    return [(s.epoch, s.position, s.entry.shape[0]) for s in hop.unsent(chunk_tokens)]


def reroute(hop: HopSession, *, epoch: int, position: int, send_from: int) -> None:
    message = Reroute(
        session=hop.id,
        layer=3,
        epoch=epoch,
        position=position,
        previous=BEFORE,
        next=AFTER,
        next_addresses=(),
        send_from=send_from,
        token_ids=None,
    )
    hop.reroute(message, FakeLink(AFTER), now=2.0)  # type: ignore[arg-type]


def test_steps_follow_each_other_and_their_outputs_are_sent_once() -> None:
    hop = session()
    assert run(hop, 0, 4)
    assert sent(hop) == [(1, 0, 4)]
    assert sent(hop) == []
    assert run(hop, 4, 1)
    assert sent(hop) == [(1, 4, 1)]
    assert (hop.accepted, hop.position, hop.journal.end) == (5, 5, 5)


def test_a_step_of_another_epoch_is_dropped_whoever_sends_it() -> None:
    hop = session(epoch=3)
    for epoch in (1, 2, 4):
        assert hop.may_step(STRANGER, a_step(0, 1, epoch))
        assert hop.accept(a_step(0, 1, epoch), STRANGER, now=1.0) is None
    assert hop.accepted == 0


def test_only_the_neighbour_before_may_step() -> None:
    assert session().may_step(BEFORE, a_step(0, 1))
    for other in (CLIENT, AFTER, STRANGER):
        assert not session().may_step(other, a_step(0, 1))
    assert session(previous=None).may_step(CLIENT, a_step(0, 1))
    assert not session(previous=None).may_step(BEFORE, a_step(0, 1))


def test_a_step_beyond_what_is_accepted_is_a_gap_and_changes_nothing() -> None:
    hop = session()
    assert run(hop, 0, 4)
    with pytest.raises(Gap):
        hop.accept(a_step(5, 1), BEFORE, now=1.0)
    assert hop.accepted == 4
    assert run(hop, 4, 1)


def test_accepted_counts_what_waits_and_position_what_is_computed() -> None:
    hop = session()
    first = hop.accept(a_step(0, 4), BEFORE, now=1.0)
    second = hop.accept(a_step(4, 2), BEFORE, now=1.0)
    assert (hop.accepted, hop.position) == (6, 0)
    assert first is not None
    assert second is not None
    hop.finish(first, Output(0, hidden(4)))
    assert hop.position == 4
    hop.finish(second, Output(4, hidden(2)))
    assert hop.position == 6


@pytest.mark.parametrize(("position", "tokens"), [(0, 17), (4, 13), (4, 1000)])
def test_more_than_the_session_may_hold_is_the_senders_fault(position: int, tokens: int) -> None:
    hop = session()
    assert run(hop, 0, 4)
    with pytest.raises(PeerMisbehaved, match="of a session of 16 tokens"):
        hop.accept(a_step(position, tokens), BEFORE, now=1.0)
    assert run(hop, 4, 12)


def test_a_repeated_step_is_dropped_and_changes_nothing() -> None:
    hop = session()
    assert run(hop, 0, 6)
    assert sent(hop) == [(1, 0, 6)]
    for position, tokens in ((2, 1), (0, 6), (5, 1)):
        assert hop.accept(a_step(position, tokens), BEFORE, now=1.0) is None
    assert (hop.accepted, hop.position, hop.journal.end) == (6, 6, 6)
    assert sent(hop) == []


def test_a_step_that_reaches_beyond_truncates_and_its_output_is_sent_again() -> None:
    hop = session()
    assert run(hop, 0, 6)
    assert sent(hop) == [(1, 0, 6)]
    assert run(hop, 4, 3)
    assert (hop.accepted, hop.position, hop.journal.end) == (7, 7, 7)
    assert sent(hop) == [(1, 4, 3)]


def test_a_void_job_leaves_no_trace() -> None:
    hop = session()
    old = hop.accept(a_step(0, 4), BEFORE, now=1.0)
    assert old is not None
    reroute(hop, epoch=2, position=0, send_from=0)
    assert old.is_void
    assert not hop.finish(old, Output(0, hidden(4)))
    assert (hop.position, hop.accepted, hop.journal.end) == (0, 0, 0)
    closed = session()
    job = closed.accept(a_step(0, 4), BEFORE, now=1.0)
    closed.is_closed = True
    assert isinstance(job, Job)
    assert not closed.finish(job, Output(0, hidden(4)))


def test_a_reroute_replays_the_journal_from_where_it_is_told() -> None:
    hop = session()
    assert run(hop, 0, 6)
    assert sent(hop) == [(1, 0, 6)]
    reroute(hop, epoch=2, position=6, send_from=2)
    assert sent(hop, chunk_tokens=3) == [(2, 2, 3), (2, 5, 1)]
    assert run(hop, 6, 1, epoch=2)
    assert sent(hop) == [(2, 6, 1)]


def test_a_reroute_forgets_what_lies_beyond_its_position() -> None:
    hop = session()
    assert run(hop, 0, 6)
    reroute(hop, epoch=2, position=4, send_from=4)
    assert (hop.accepted, hop.position, hop.journal.end) == (4, 4, 4)
    assert sent(hop) == []
    with pytest.raises(Gap):
        hop.accept(a_step(5, 1, epoch=2), BEFORE, now=1.0)


def test_a_reroute_counts_only_what_is_computed() -> None:
    hop = session()
    assert run(hop, 0, 2)
    hop.accept(a_step(2, 4), BEFORE, now=1.0)
    reroute(hop, epoch=2, position=6, send_from=0)
    assert (hop.accepted, hop.position) == (2, 2)


def test_a_replacement_sends_nothing_below_send_from() -> None:
    hop = session(send_from=5)
    assert run(hop, 0, 4)
    assert sent(hop) == []
    assert run(hop, 4, 3)
    assert sent(hop) == [(1, 5, 2)]
    assert hop.journal.end == 7


def test_a_job_computes_an_answer_only_from_send_from_on() -> None:
    hop = session(send_from=5, next=None, block=FakeBlock(LayerRange(6, 9)))
    job = hop.accept(a_step(0, 4), BEFORE, now=1.0)
    assert job is not None
    assert job.send_from == 5
    job = hop.accept(a_step(4, 3), BEFORE, now=1.0)
    assert job is not None
    assert job.send_from == 5
    job = hop.accept(a_step(7, 1), BEFORE, now=1.0)
    assert job is not None
    assert job.send_from == 7


def test_the_last_hop_keeps_no_journal() -> None:
    hop = session(next=None, block=FakeBlock(LayerRange(6, 9)))
    assert run(hop, 0, 4)
    assert hop.journal.end == 0
    assert hop.position == 4


def test_a_lost_next_hop_does_not_make_us_the_last() -> None:
    hop = session()
    assert hop.next is not None
    hop.next.is_open = False  # type: ignore[misc]
    assert not hop.ends_chain
    assert run(hop, 0, 4)
    assert hop.journal.end == 4
