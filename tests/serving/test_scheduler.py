"""What goes into the next forward: order, shares, budgets; and nothing is lost or starves."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pnode.serving.scheduler import (
    HOLD_SHARE,
    LAZY_SHARE,
    MAX_FORWARD_TOKENS,
    MIN_PIECE_TOKENS,
    PACE,
    Scheduler,
)
from p2pnode.trend import Cost

COST = Cost(fixed_s=0.010, token_s=0.001)


@dataclass(eq=False)
class FakeSession:
    client: str = "a"
    block: str = "0-8"


@dataclass(eq=False)
class FakeJob:
    """So many tokens of a session from ``start`` on."""

    session: FakeSession
    num_tokens: int
    submitted_at: float = 0.0
    start: int = 0
    is_void: bool = False
    is_lazy: bool = False

    @property
    def client(self) -> str:
        return self.session.client

    @property
    def block(self) -> str:
        return self.session.block

    def split(self, num_tokens: int) -> FakeJob:
        assert 0 < num_tokens < self.num_tokens
        piece = FakeJob(self.session, num_tokens, self.submitted_at, self.start)
        piece.is_lazy = self.is_lazy
        self.start += num_tokens
        self.num_tokens -= num_tokens
        return piece


def scheduler(*jobs: FakeJob, cost: Cost = COST, batch_limit: int | None = None) -> Fakes:
    made: Fakes = Scheduler(lambda: cost, batch_limit=batch_limit)
    for job in jobs:
        made.put(job)
    return made


Fakes = Scheduler[FakeJob]


def decode(client: str = "a", at: float = 0.0, block: str = "0-8") -> FakeJob:
    return FakeJob(FakeSession(client, block), 1, at)


def prompt(num_tokens: int, client: str = "a", at: float = 0.0) -> FakeJob:
    return FakeJob(FakeSession(client), num_tokens, at)


def tokens_by_client(batch: list[FakeJob]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for job in batch:
        counts[job.client] += job.num_tokens
    return counts


def test_decodes_of_all_sessions_are_one_forward() -> None:
    jobs = [decode(at=index) for index in range(20)]
    assert scheduler(*jobs).take(0.0) == jobs


def test_the_limit_makes_nine_tenths_of_the_rate_of_an_endless_batch() -> None:
    limit = scheduler().batch_limit
    rate = limit / (COST.fixed_s + COST.token_s * limit)
    assert rate >= 0.89 / COST.token_s
    assert scheduler(batch_limit=5).batch_limit == 5


def test_beyond_the_limit_each_clients_oldest_goes_first() -> None:
    greedy = [decode("greedy", at=index) for index in range(20)]
    modest = [decode("modest", at=50.0), decode("shy", at=60.0)]
    first = scheduler(*greedy, *modest, batch_limit=4).take(0.0)
    assert first == [greedy[0], modest[0], modest[1], greedy[1]]


def test_with_decodes_waiting_a_forward_stays_within_its_pace() -> None:
    jobs = [decode() for _ in range(4)]
    cost = Cost(fixed_s=0.040, token_s=0.001)
    batch = scheduler(*jobs, prompt(1000), cost=cost).take(0.0)
    assert batch[:4] == jobs
    total = sum(job.num_tokens for job in batch)
    alone_s = cost.fixed_s + 4 * cost.token_s
    assert cost.fixed_s + total * cost.token_s == pytest.approx(PACE * alone_s)


def test_alone_a_prompt_gets_whole_forwards_and_less_while_others_step() -> None:
    quiet = scheduler(prompt(1200))
    assert [job.num_tokens for job in quiet.take(0.0)] == [MAX_FORWARD_TOKENS]
    lively, other = scheduler(prompt(1200)), decode()
    lively.note([other], 0.0, 0.01)
    assert [job.num_tokens for job in lively.take(0.5)] == [40]
    assert [job.num_tokens for job in lively.take(1.5)] == [MAX_FORWARD_TOKENS]


def test_a_session_whose_prompt_was_computed_will_step_soon() -> None:
    first, second = prompt(60), prompt(1200)
    queue = scheduler(second)
    queue.note([first], 0.0, 0.1)
    assert [job.num_tokens for job in queue.take(0.1)] == [40]
    second = prompt(1200)
    lone = scheduler(second)
    lone.note([second], 0.0, 0.5)
    assert [job.num_tokens for job in lone.take(0.5)] == [MAX_FORWARD_TOKENS]


@pytest.mark.parametrize(("knee", "longest"), [(1.0, 8), (10.0, 10), (200.0, 32)])
def test_what_takes_as_long_as_two_decode_steps_is_prefill(knee: float, longest: int) -> None:
    """Chunks of prompts may be short where each token is dear: they must not pass as decodes."""
    cost = Cost(knee * 1e-3, 1e-3)
    queue = scheduler(decode("a"), *(prompt(longest + 1, name) for name in "bcdef"), cost=cost)
    assert queue.small_tokens == longest
    batch = queue.take(0.0)
    extra = sum(job.num_tokens for job in batch) - 1
    assert extra <= max(MIN_PIECE_TOKENS, (PACE - 1.0) * (knee + 1.0))


def test_clients_share_the_prefill_whatever_they_ask_for() -> None:
    greedy = [prompt(4000, "greedy", at=index) for index in range(8)]
    queue = scheduler(*greedy, prompt(1000, "modest", at=100.0))
    counts: Counter[str] = Counter()
    while counts["modest"] < 1000:
        counts += tokens_by_client(queue.take(0.0))
    assert counts["greedy"] <= 1000 + MAX_FORWARD_TOKENS


def test_who_stepped_together_is_waited_for_a_moment() -> None:
    a, b, alone = FakeSession(), FakeSession(), FakeSession()
    fakes = scheduler()
    first = [FakeJob(a, 1), FakeJob(b, 1)]
    fakes.note(first, 0.0, 0.012)
    fakes.put(FakeJob(alone, 1, 1.0))
    assert fakes.hold_until(1.0) == 1.0
    fakes.put(FakeJob(a, 1, 1.001))
    assert fakes.hold_until(1.001) == pytest.approx(1.0 + HOLD_SHARE * COST.fixed_s)
    fakes.put(FakeJob(b, 1, 1.002))
    assert fakes.hold_until(1.002) == 1.002
    assert len(fakes.take(1.002)) == 3
    fakes.put(FakeJob(a, 1, 2.0))
    fakes.put(FakeJob(FakeSession(), 1000, 2.0))
    assert fakes.hold_until(2.0) == 2.0  # beside a prompt nothing is saved
    fakes.take(2.0)
    fakes.note([FakeJob(a, 1)], 2.0, 0.012)  # without b: it goes its own way now
    fakes.put(FakeJob(a, 1, 3.0))
    assert fakes.hold_until(3.0) == 3.0


def test_layers_take_turns() -> None:
    whole, part = prompt(5000), decode(block="3-5", at=1.0)
    queue = scheduler(whole, part)
    first, second = queue.take(0.0), queue.take(0.0)
    assert first[0].session is whole.session
    assert second == [part]


def test_lazy_jobs_run_when_nobody_else_waits_and_for_their_share_of_the_time() -> None:
    lazy = [FakeJob(FakeSession(), 1, is_lazy=True) for _ in range(2)]
    urgent = decode(at=9.0)
    queue = scheduler(*lazy, urgent)
    assert queue.take(0.0) == [urgent]
    queue.put(third := FakeJob(FakeSession(), 1, is_lazy=True))
    assert queue.take(0.0) == [*lazy, third]
    queue.note(lazy, 0.0, 1.0)
    queue.put(FakeJob(FakeSession(), 1, is_lazy=True))
    assert queue.take(0.99 / LAZY_SHARE) == []
    assert queue.num_waiting == 1
    assert len(queue.take(queue.lazy_from)) == 1


@dataclass
class Run:
    """What a device did with random jobs, one forward after the other."""

    now: float = 0.0
    done: dict[int, list[FakeJob]] = field(default_factory=dict)
    began: dict[int, float] = field(default_factory=dict)


jobs_of = st.lists(
    st.tuples(
        st.integers(0, 5),  # session
        st.integers(1, 700),
        st.floats(0.0, 5.0),
        st.booleans(),  # void
    ),
    max_size=40,
)


@settings(max_examples=80, deadline=None)
@given(jobs_of, st.integers(1, 64), st.floats(0.5, 500.0))
def test_every_token_is_computed_once_in_order_and_no_forward_is_empty(
    wanted: list[tuple[int, int, float, bool]], limit: int, knee: float
) -> None:
    sessions = [FakeSession(f"client {i % 3}", f"block {i % 2}") for i in range(6)]
    queue = scheduler(cost=Cost(knee * 1e-3, 1e-3), batch_limit=limit)
    expected: dict[int, list[int]] = {}
    ends = Counter[int]()
    for index, num_tokens, at, is_void in sorted(wanted, key=lambda job: job[2]):
        start = 0 if is_void else ends[index]
        job = FakeJob(sessions[index], num_tokens, at, start=start, is_void=is_void)
        queue.put(job)
        if not is_void:
            expected.setdefault(index, []).extend(range(start, start + num_tokens))
            ends[index] += num_tokens
    computed: dict[int, list[int]] = {}
    while batch := queue.take(10.0):
        assert len({id(job.session) for job in batch}) == len(batch)
        assert len({job.block for job in batch}) == 1
        small = sum(job.num_tokens for job in batch if job.num_tokens <= queue.small_tokens)
        assert sum(job.num_tokens for job in batch) <= small + MAX_FORWARD_TOKENS
        for job in batch:
            index = sessions.index(job.session)
            computed.setdefault(index, []).extend(range(job.start, job.start + job.num_tokens))
    assert computed == expected
    assert queue.num_waiting == 0


@pytest.mark.parametrize("seed", range(3))
def test_a_prompt_ends_though_decodes_never_stop(seed: int) -> None:
    rng = random.Random(seed)
    queue = scheduler(prompt(1000, "newcomer"), cost=Cost(1e-6, 1e-3), batch_limit=8)
    left = 1000
    for now in range(1000 // MIN_PIECE_TOKENS + 1):
        for _ in range(20):
            queue.put(decode(rng.choice("abc"), at=float(now)))
        left -= tokens_by_client(queue.take(float(now)))["newcomer"]
    assert left == 0
