"""What is merged into one forward, and that one session's trouble is not another's."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from p2pnode.errors import ComputeFailed
from p2pnode.model.block import Block
from p2pnode.model.chooser import Chooser
from p2pnode.model.source import find_model
from p2pnode.model.spec import read_spec
from p2pnode.net.memory import fake_peer_id
from p2pnode.serving.job import Job, Output
from p2pnode.serving.session import HopSession
from p2pnode.serving.worker import Outcome, Worker
from p2pnode.tasks import Tasks
from p2pnode.types import LayerRange, Sampling, Tensor
from tests.support.hostile import hidden, ids
from tests.support.models import greedy

pytestmark = pytest.mark.virtual_time

PROMPT = [1, 403, 407, 261, 378, 31, 76, 99]


class FakeLink:
    """Somebody at the other end."""

    peer = fake_peer_id(0)
    is_open = True


@pytest.fixture(scope="module")
def block(tiny: Path, cache: Path) -> Block:
    files = find_model(str(tiny), cache=cache)
    spec = read_spec(files.folder, files.name, files.fingerprint)
    return Block.load(files.folder, spec, LayerRange(0, 9), device="cpu", dtype="float32")


def session(block: Block, *, is_last: bool = False, max_tokens: int = 256) -> HopSession:
    return HopSession(
        id=b"s" * 16,
        block=block,
        epoch=1,
        max_tokens=max_tokens,
        client=FakeLink(),  # type: ignore[arg-type]
        previous=None,
        next=None if is_last else FakeLink(),  # type: ignore[arg-type]
        send_from=0,
        chooser=Chooser(Sampling(), num_prompt=0) if is_last else None,
        token_ids=[],
        cache=block.new_cache(max_tokens),
    )


def job(owner: HopSession, position: int, entry: Tensor, *, epoch: int = 1) -> Job:
    return Job(owner, epoch, position, entry, 0.0)


class Running:
    """A worker and what it has done, in order."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.done: list[tuple[Job, Outcome]] = []
        self._all = asyncio.Event()
        self._due = 0

    def on_done(self, done: Job, outcome: Outcome, queue_s: float, compute_s: float) -> None:
        assert queue_s >= 0
        assert compute_s >= 0
        self.done.append((done, outcome))
        if len(self.done) == self._due:
            self._all.set()

    async def run(self, *jobs: Job, due: int | None = None) -> list[Outcome]:
        """Submit jobs at once and wait for ``due`` outcomes (of all, by default)."""
        self._due = len(self.done) + (len(jobs) if due is None else due)
        self._all.clear()
        for each in jobs:
            self.worker.submit(each)
        await self._all.wait()
        return [outcome for _, outcome in self.done[-(due or len(jobs)) :]]


@asynccontextmanager
async def running() -> AsyncIterator[Running]:
    async with Worker() as worker, Tasks() as tasks:
        made = Running(worker)
        tasks.start(worker.run(made.on_done), name="worker")
        yield made


def rows_of(outcome: Outcome) -> np.ndarray[Any, Any]:
    """The hidden states of an output."""
    assert isinstance(outcome, Output)
    assert outcome.hidden is not None
    return np.frombuffer(outcome.hidden.data, np.float32)


def batches(*jobs: Job) -> list[list[int]]:
    """Which jobs (by index) go into which forward."""
    worker = Worker()
    for each in jobs:
        worker.submit(each)
    made = []
    while worker.num_waiting:
        batch = worker.scheduler.take(0.0)
        if batch:
            made.append([jobs.index(each) for each in batch])
    return made


def test_steps_of_different_sessions_go_into_one_forward(block: Block) -> None:
    jobs = [job(session(block), 0, ids(1, 2)) for _ in range(5)]
    assert batches(*jobs) == [[0, 1, 2, 3, 4]]


def test_a_session_has_one_step_in_a_forward_and_keeps_its_order(block: Block) -> None:
    one, two = session(block), session(block)
    jobs = [job(one, 0, ids(1)), job(one, 1, ids(2)), job(two, 0, ids(3)), job(one, 2, ids(4))]
    assert batches(*jobs) == [[0, 2], [1], [3]]


def test_only_steps_of_the_same_layers_are_merged(block: Block) -> None:
    part = block.part(LayerRange(0, 4))
    jobs = [job(session(each), 0, ids(1)) for each in (block, part, block, part)]
    assert batches(*jobs) == [[0, 2], [1, 3]]


def test_void_steps_are_left_out(block: Block) -> None:
    closed, moved, good = session(block), session(block), session(block)
    jobs = [job(each, 0, ids(1)) for each in (closed, moved, good)]
    closed.is_closed = True
    moved.epoch = 2
    assert batches(*jobs) == [[2]]


@pytest.mark.parametrize("is_last", [False, True])
async def test_a_long_step_is_computed_in_pieces_with_the_same_outputs(
    is_last: bool, block: Block
) -> None:
    text = ids(*(index % 500 + 3 for index in range(200)))
    async with running() as worker:
        other = session(block)
        worker.worker.scheduler.note([job(other, 0, ids(1))], 0.0, 0.01)  # others decode
        owner = session(block, is_last=is_last)
        pieces = await worker.run(job(owner, 0, text), due=2)
        whole = Worker()
        outcome = whole._compute([job(session(block, is_last=is_last), 0, text)])[0]
    assert isinstance(outcome, Output)
    outputs = [each for each in pieces if isinstance(each, Output)]
    assert [each.position for each in outputs] == [0, 128]
    if is_last:
        assert sum((each.token_ids for each in outputs), ()) == outcome.token_ids
    else:
        rows = np.concatenate([rows_of(each) for each in outputs])
        np.testing.assert_allclose(rows, rows_of(outcome), atol=1e-4)


async def test_in_any_mix_of_pieces_and_steps_each_text_is_the_unsplit_models(
    block: Block, tiny: Path
) -> None:
    prompts = [[(7 * index + 11 * n) % 500 + 3 for index in range(n)] for n in (150, 3, 90, 40, 1)]
    texts = [list(prompt) for prompt in prompts]
    owners = [session(block, is_last=True) for _ in prompts]
    ended = asyncio.Event()
    sizes: list[int] = []

    def step(index: int, position: int) -> None:
        owners[index].send_from = len(texts[index]) - 1
        worker.submit(job(owners[index], position, ids(*texts[index][position:])))

    def on_done(done: Job, outcome: Outcome, queue_s: float, compute_s: float) -> None:
        assert isinstance(outcome, Output)
        index = owners.index(done.session)
        sizes.append(done.num_tokens)
        texts[index] += outcome.token_ids
        if outcome.token_ids and len(texts[index]) < len(prompts[index]) + 12:
            step(index, len(texts[index]) - 1)
        elif all(len(text) == len(p) + 12 for text, p in zip(texts, prompts, strict=True)):
            ended.set()

    async with Worker() as worker, Tasks() as tasks:
        for index in range(len(prompts)):
            step(index, 0)
        tasks.start(worker.run(on_done), name="worker")
        await ended.wait()
    made = [text[len(prompt) :] for text, prompt in zip(texts, prompts, strict=True)]
    assert made == [greedy(tiny, prompt, 12) for prompt in prompts]
    assert len(sizes) > 5 * 12  # some prompts were split


async def test_merged_sessions_get_the_tokens_of_the_unsplit_model(
    block: Block, tiny: Path
) -> None:
    prompts = [PROMPT[:length] for length in (8, 3, 5)]
    async with running() as worker:
        jobs = [job(session(block, is_last=True), 0, ids(*prompt)) for prompt in prompts]
        for each in jobs:
            each.session.send_from = each.entry.shape[0] - 1
        outcomes = await worker.run(*jobs)
    made = [list(outcome.token_ids) for outcome in outcomes if isinstance(outcome, Output)]
    assert made == [greedy(tiny, prompt, 1) for prompt in prompts]


@pytest.mark.parametrize("value", [math.nan, math.inf])
async def test_input_that_is_not_finite_fails_its_session_and_no_other(
    value: float, block: Block
) -> None:
    async with running() as worker:
        bad, good = session(block), session(block)
        outcomes = await worker.run(job(bad, 0, hidden(2, value)), job(good, 0, hidden(2)))
        alone = await worker.run(job(session(block), 0, hidden(2)))
    assert isinstance(outcomes[0], ComputeFailed)
    assert str(outcomes[0]).startswith("input of layers 0-8")
    merged, single = (rows_of(outcome) for outcome in (outcomes[1], alone[0]))
    np.testing.assert_allclose(merged, single, atol=1e-4)  # values are of the order of 10


async def test_a_step_that_cannot_run_fails_alone_and_the_worker_goes_on(block: Block) -> None:
    async with running() as worker:
        gap, full, good = session(block), session(block, max_tokens=1), session(block)
        outcomes = await worker.run(
            job(gap, 3, ids(1)), job(good, 0, ids(1, 2)), job(full, 0, ids(1, 2))
        )
        assert [type(outcome) for outcome in outcomes] == [ComputeFailed, Output, ComputeFailed]
        assert "gap" in str(outcomes[0])
        assert "room for 1 tokens" in str(outcomes[2])
        (after,) = await worker.run(job(good, 2, ids(3)))
        assert isinstance(after, Output)


async def test_only_the_last_layers_choose_a_token(block: Block) -> None:
    part = block.part(LayerRange(0, 4))
    async with running() as worker:
        (outcome,) = await worker.run(job(session(part, is_last=True), 0, ids(1)))
        assert isinstance(outcome, Output)
        assert outcome.hidden is not None
        assert outcome.token_ids == ()


async def test_what_the_client_has_already_is_computed_and_not_answered(block: Block) -> None:
    async with running() as worker:
        owner = session(block, is_last=True)
        owner.send_from = 5
        first, second = job(owner, 0, ids(1, 2, 3)), job(owner, 3, ids(4, 5, 6, 7))
        outcomes = await worker.run(first, second)
    assert outcomes[0] == Output(5)
    assert isinstance(outcomes[1], Output)
    assert (outcomes[1].position, len(outcomes[1].token_ids)) == (5, 2)
