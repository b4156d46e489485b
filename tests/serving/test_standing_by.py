"""Early steps, standbys and hedges, as rules of one hop's part of a session."""

from __future__ import annotations

from typing import Any

from p2pnode.serving.session import Shadowing
from tests.serving.test_session import BEFORE, STRANGER, FakeLink, a_step, run, sent, session
from tests.support.hostile import hidden


def test_a_step_of_a_later_epoch_waits_for_its_reroute() -> None:
    hop = session()
    link: Any = FakeLink(BEFORE)
    assert run(hop, 0, 4)
    assert not hop.keep_early(link, a_step(4, 1))
    assert not hop.keep_early(link, a_step(4, 1, epoch=0))
    assert hop.keep_early(link, a_step(4, 1, epoch=2))
    assert hop.keep_early(link, a_step(5, 1, epoch=2))
    assert [step.position for _, step in hop.early] == [4, 5]


def test_early_steps_are_bounded_and_those_of_the_latest_epoch_win() -> None:
    hop = session()
    link: Any = FakeLink(STRANGER)
    for _ in range(100):
        hop.keep_early(link, a_step(0, 4, epoch=2))
    assert len(hop.early) == 4, "16 tokens are all that the session may hold"
    hop.keep_early(link, a_step(0, 4, epoch=3))
    assert [step.epoch for _, step in hop.early] == [3]


def test_the_standby_of_the_hop_before_may_step_too_and_never_makes_a_gap() -> None:
    hop = session(alternate=STRANGER)
    assert run(hop, 0, 4)
    assert hop.may_step(STRANGER, a_step(4, 1))
    assert hop.accept(a_step(6, 1), STRANGER, now=1.0) is None
    job = hop.accept(a_step(4, 1), STRANGER, now=1.0)
    assert job is not None
    assert hop.accept(a_step(4, 1), BEFORE, now=1.0) is None, "it was there first"


def test_a_standby_sends_nothing_until_it_is_hedged_to_and_then_once() -> None:
    hop = session(send_from=16)
    assert hop.is_standby
    assert run(hop, 0, 4)
    assert sent(hop) == []
    assert list(hop.hedged()) == []
    hop.hedged_at = 4
    assert list(hop.hedged()) == [], "it is not computed yet"
    assert run(hop, 4, 1)
    assert [step.position for step in hop.hedged()] == [4]
    assert list(hop.hedged()) == []
    assert run(hop, 5, 1)
    assert sent(hop) == []


def test_jobs_of_a_standby_are_lazy_until_somebody_waits_for_them() -> None:
    hop = session(send_from=16)
    job = hop.accept(a_step(0, 4), BEFORE, now=1.0)
    assert job is not None
    assert job.is_lazy
    hop.hedged_at = 3
    assert not job.is_lazy
    assert job.send_from == 3


def test_the_newest_row_is_not_copied_to_a_standby_until_it_has_to_be() -> None:
    hop = session()
    link: Any = FakeLink(STRANGER)
    hop.shadowing = Shadowing(link, cursor=0)
    assert run(hop, 0, 4)
    assert run(hop, 4, 1)
    copied = [(s.position, s.entry.shape[0]) for _ in range(3) for s in hop.uncopied(2, leave=1)]
    assert copied == [(0, 2), (2, 2)]
    assert [(s.position, s.entry.shape[0]) for s in hop.uncopied(8, leave=0)] == [(4, 1)]


def test_a_standby_that_lacks_what_is_forgotten_is_copied_nothing() -> None:
    hop = session()
    link: Any = FakeLink(STRANGER)
    hop.shadowing = Shadowing(link, cursor=0)
    for position in range(6):
        assert run(hop, position, 1)
    hop.journal.trim(2 * hidden(1).num_bytes)
    assert list(hop.uncopied(8, leave=1)) == []
    assert hop.replays_from == 4


def test_a_step_that_failed_may_come_again() -> None:
    hop = session()
    job = hop.accept(a_step(0, 4), BEFORE, now=1.0)
    assert job is not None
    hop.fail(job)
    assert hop.accepted == 0
    assert run(hop, 0, 4)
