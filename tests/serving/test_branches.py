"""Guesses that were wrong leave no trace, in whatever order steps, cuts and results come."""

from __future__ import annotations

import random
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pnode.net.memory import fake_peer_id
from p2pnode.serving.job import Job, Output
from p2pnode.serving.session import Gap, HopSession
from p2pnode.types import LayerRange, PeerId, Tensor
from p2pnode.wire.messages import Cut, Step
from tests.support.hostile import SESSION

CLIENT, FIRST, SECOND, AFTER = (fake_peer_id(number) for number in range(4))
MAX_TOKENS = 4096


class FakeBlock:
    """Three layers of nine; computes nothing."""

    spec = SimpleNamespace(num_layers=9)

    def __init__(self, start: int) -> None:
        self.layers = LayerRange(start, start + 3)


class FakeLink:
    """Has a peer at its other end."""

    is_open = True

    def __init__(self, peer: PeerId) -> None:
        self.peer = peer


def hop(start: int, previous: PeerId | None) -> HopSession:
    fields: dict[str, Any] = {
        "id": SESSION,
        "block": FakeBlock(start),
        "epoch": 1,
        "max_tokens": MAX_TOKENS,
        "client": FakeLink(CLIENT),
        "previous": previous,
        "next": FakeLink(AFTER),
        "send_from": 0,
        "token_ids": [],
        "cache": None,
    }
    return HopSession(**fields)


def rows_of(tokens: list[int]) -> Tensor:
    """Hidden states that say which tokens they are of: bfloat16 [tokens, 1]."""
    data = b"".join(token.to_bytes(2, "little") for token in tokens)
    return Tensor("bfloat16", (len(tokens), 1), data)


def tokens_of(entry: Tensor) -> list[int]:
    data = bytes(entry.data)
    return [int.from_bytes(data[at : at + 2], "little") for at in range(0, len(data), 2)]


def step(position: int, tokens: list[int], branch: int, num_guessed: int = 0) -> Step:
    return Step(
        session=SESSION,
        layer=0,
        epoch=1,
        branch=branch,
        position=position,
        num_guessed=num_guessed,
        entry=rows_of(tokens),
    )


def run(session: HopSession, sender: PeerId, given_step: Step) -> None:
    job = session.accept(given_step, sender, now=0.0)
    assert job is not None
    session.finish(job, Output(job.position, job.entry))


def held(session: HopSession) -> list[int]:
    return [t for _, rows in session.journal.chunks(0, MAX_TOKENS) for t in tokens_of(rows)]


def test_a_new_branch_replaces_what_is_held_from_its_position_on() -> None:
    session = hop(0, None)
    run(session, CLIENT, step(0, [1, 2, 3, 4], branch=0, num_guessed=2))
    run(session, CLIENT, step(2, [9], branch=1))
    assert held(session) == [1, 2, 9]
    assert session.position == session.accepted == 3


def test_what_comes_late_of_an_old_branch_is_dropped() -> None:
    session = hop(0, None)
    run(session, CLIENT, step(0, [1, 2, 3], branch=0))
    session.cut(1, 1)
    assert session.accept(step(3, [4], branch=0), CLIENT, now=0.0) is None
    assert held(session) == [1]


def test_a_job_that_runs_keeps_what_was_not_cut_off() -> None:
    session = hop(0, None)
    job = session.accept(step(0, [1, 2, 3, 4], branch=0), CLIENT, now=0.0)
    assert job is not None
    session.cut(1, 2)
    assert session.finish(job, Output(0, job.entry))
    assert held(session) == [1, 2]
    assert [tokens_of(each.entry) for each in session.unsent(8)] == [[1, 2]]


def test_a_job_that_waits_is_void_when_all_of_it_was_cut_off() -> None:
    session = hop(0, None)
    run(session, CLIENT, step(0, [1, 2], branch=0))
    job = session.accept(step(2, [3, 4], branch=0), CLIENT, now=0.0)
    assert job is not None
    session.cut(1, 2)
    assert job.is_void
    assert not session.finish(job, Output(2, job.entry))
    assert held(session) == [1, 2]


def test_a_cut_beyond_what_is_accepted_waits_for_its_step() -> None:
    session = hop(0, None)
    run(session, CLIENT, step(0, [1], branch=0))
    session.cut(1, 3)
    assert session.branch == 0
    run(session, CLIENT, step(1, [2, 3], branch=0))
    run(session, CLIENT, step(3, [4], branch=1))
    assert held(session) == [1, 2, 3, 4]
    with pytest.raises(Gap):
        session.accept(step(9, [5], branch=2), CLIENT, now=0.0)


def test_a_standby_is_not_given_guesses() -> None:
    session = hop(0, None)
    run(session, CLIENT, step(0, [1, 2, 3, 4, 5], branch=0, num_guessed=3))
    session.shadowing = SimpleNamespace(link=FakeLink(AFTER), cursor=0)  # type: ignore[assignment]
    assert [tokens_of(each.entry) for each in session.uncopied(8, leave=1)] == [[1, 2]]
    run(session, CLIENT, step(5, [6], branch=0, num_guessed=2))
    assert [tokens_of(each.entry) for each in session.uncopied(8, leave=1)] == [[3, 4]]


class Chain:
    """A client, two hops, and what is on its way between them, in order on each way."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.line: list[int] = []
        self.branch = 0
        self.num_settled = 0
        self.hops = [hop(0, None), hop(3, FIRST)]
        self.senders = [CLIENT, FIRST]
        self.links: list[deque[Any]] = [deque(), deque()]
        self.cuts: list[deque[Cut]] = [deque(), deque()]
        self.jobs: list[deque[Job]] = [deque(), deque()]

    def guess(self) -> None:
        made = [self.rng.randrange(1000) for _ in range(self.rng.randint(1, 4))]
        start = len(self.line)
        self.line += made
        guessed = len(self.line) - self.num_settled
        self.links[0].append(step(start, made, self.branch, guessed))

    def turn(self) -> None:
        """All hops have done some of the line, and a later guess proves wrong."""
        done = min(each.position if each.branch == self.branch else 0 for each in self.hops)
        if done <= self.num_settled:
            return
        at = self.rng.randint(self.num_settled + 1, done)
        self.line[at:] = [self.rng.randrange(1000)]
        self.num_settled = at + 1
        self.branch += 1
        self.links[0].append(step(at, self.line[at:], self.branch))
        cut = Cut(session=SESSION, layer=0, epoch=1, branch=self.branch, position=at)
        for each in self.cuts:
            each.append(cut)

    def deliver(self, index: int) -> None:
        if self.links[index]:
            job = self.hops[index].accept(self.links[index].popleft(), self.senders[index], now=0.0)
            if job is not None:
                self.jobs[index].append(job)

    def deliver_cut(self, index: int) -> None:
        if self.cuts[index]:
            cut = self.cuts[index].popleft()
            self.hops[index].cut(cut.branch, cut.position)

    def compute(self, index: int) -> None:
        if self.jobs[index]:
            job = self.jobs[index].popleft()
            if not job.is_void:
                self.hops[index].finish(job, Output(job.position, job.entry))
                if index == 0:
                    self.links[1].extend(self.hops[0].unsent(8))

    def settle(self) -> None:
        while any(self.links) or any(self.jobs) or any(self.cuts):
            for index in range(2):
                self.deliver(index)
                self.compute(index)
                self.deliver_cut(index)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(5, 120))
def test_hops_end_up_with_the_line_in_any_order_of_events(seed: int, num_events: int) -> None:
    chain = Chain(random.Random(seed))
    events = [chain.guess, chain.turn]
    events += [lambda i=i: chain.deliver(i) for i in range(2)]  # type: ignore[misc]
    events += [lambda i=i: chain.deliver_cut(i) for i in range(2)]  # type: ignore[misc]
    events += [lambda i=i: chain.compute(i) for i in range(2)]  # type: ignore[misc]
    for _ in range(num_events):
        chain.rng.choice(events)()
    chain.settle()
    for session in chain.hops:
        assert held(session) == chain.line
        assert session.position == session.accepted == len(chain.line)
        assert session.settled <= chain.num_settled
