"""Servers that claim to be the fastest and fail, in one way each: the text is the right one."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from p2pnode.client.events import Done
from p2pnode.errors import NoChain
from p2pnode.lab.swarm import LocalSwarm
from p2pnode.net.link import Link
from p2pnode.types import Tensor
from p2pnode.wire.messages import Close, Open, Progress, Refused, Rerouted, Result, Step
from tests.support.hostile import BrokenServer, accept, broken_server, fault, hidden, ids
from tests.support.models import greedy

PROMPT = [1, 403, 407, 261, 378, 31, 76, 99]
NUM_TOKENS = 6
LATENCY_S = 0.01

pytestmark = pytest.mark.virtual_time

Reply = Callable[[BrokenServer, Link, Any], None]


def at_open(reply: Reply) -> Reply:
    """Misbehave when a session is opened."""

    def act(server: BrokenServer, link: Link, message: Any) -> None:
        if isinstance(message, Open):
            reply(server, link, message)

    return act


def at_step(reply: Reply) -> Reply:
    """Take a place in the chain, and misbehave to its client when there is something to do."""

    def act(server: BrokenServer, link: Link, message: Any) -> None:
        if isinstance(message, Open):
            accept(link, message)
        elif isinstance(message, Step):
            reply(server, server.clients[message.session], message)

    return act


def refuse(retry_after_s: float) -> Reply:
    """No, and ask again so much later."""

    def reply(server: BrokenServer, link: Link, message: Open) -> None:
        known: dict[str, Any] = {
            "session": message.session,
            "layer": message.layers.start,
            "epoch": message.epoch,
        }
        link.send(Refused(**known, reason="no", retry_after_s=retry_after_s))

    return at_open(reply)


def result(*token_ids: int, offset: int = 0, rows: Tensor | None = None, epoch: int = 0) -> Reply:
    """Answer a step with this."""

    def reply(server: BrokenServer, link: Link, message: Step) -> None:
        position = message.position + message.entry.shape[0] - 1 + offset
        known: dict[str, Any] = {
            "session": message.session,
            "layer": message.layer,
            "epoch": message.epoch + epoch,
        }
        link.send(Result(**known, position=position, token_ids=token_ids, hidden=rows))

    return at_step(reply)


def send(make: Callable[[Any], object]) -> Reply:
    """Send the client this message."""
    return lambda server, link, message: link.send(make(message))


def write(data: bytes) -> Reply:
    """Send the client these bytes."""
    return lambda server, link, message: link.stream.write(data)


def hang_up(server: BrokenServer, link: Link, message: Any) -> None:
    """End the link without END."""
    link.stream.close()


def ignore(server: BrokenServer, link: Link, message: Any) -> None:
    """Say nothing."""


LAST_HOP: dict[str, Reply] = {
    "it never answers": ignore,
    "it hangs up when it is asked": at_open(hang_up),
    "it refuses always": refuse(5.0),
    "it refuses and wants to be asked again at once": refuse(1e-9),
    "it refuses for ever": refuse(1e300),
    "it answers an open with garbage": at_open(write(b"\xff" * 100)),
    "it answers an open with a rerouted": at_open(
        send(
            lambda m: Rerouted(
                session=m.session, layer=6, epoch=m.epoch, position=0, replays_from=0
            )
        )
    ),
    "it answers an open with a close": at_open(send(lambda m: Close(session=m.session, layer=6))),
    "it answers an open with the open": at_open(send(lambda m: m)),
    "it faults at every open": at_open(send(lambda m: fault(m, "compute"))),
    "it says yes and then nothing": at_step(ignore),
    "it hangs up at the first step": at_step(hang_up),
    "it answers a step with garbage": at_step(write(b"\xff" * 100)),
    "it faults at every step": at_step(send(lambda m: fault(m, "compute"))),
    "it forgets its sessions": at_step(send(lambda m: fault(m, "unknown"))),
    "it claims a gap": at_step(send(lambda m: fault(m, "gap"))),
    "it closes the client's session": at_step(
        send(lambda m: Close(session=m.session, layer=m.layer))
    ),
    "its token is not in the vocabulary": result(512),
    "its token is no token at all": result((1 << 63) - 1),
    "it answers two tokens for one": result(1, 2),
    "it answers no token": result(),
    "it answers hidden states for a token": result(rows=hidden(1)),
    "it answers for an earlier position": result(5, offset=-1),
    "it answers for a later position": result(5, offset=1),
    "it answers for a later epoch": result(5, epoch=1),
    "it claims to be far ahead and answers nothing": at_step(
        send(
            lambda m: Progress(
                session=m.session,
                layer=m.layer,
                epoch=m.epoch,
                position=(1 << 63) - 1,
                replays_from=0,
                num_steps=1,
                queue_s=0.0,
                compute_s=0.0,
            )
        )
    ),
}


async def answer(swarm: LocalSwarm, **options: Any) -> Done:
    """What a client with these options gets."""
    async with swarm.client(**options) as client:
        return await client.generate(PROMPT, max_tokens=NUM_TOKENS)


def peers_of(done: Done) -> set[str]:
    """Who has made the last token."""
    return {hop.peer for hop in done.chain.hops}


@pytest.mark.parametrize("what", LAST_HOP)
async def test_a_broken_last_hop_is_replaced_and_the_text_is_right(
    what: str, tiny: Path, cache: Path
) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        await swarm.start("0-2", "3-5", "6-8")
        async with broken_server(swarm, "6-8", LAST_HOP[what]) as broken:
            done = await answer(swarm)
            assert broken.num_asked >= 1
            assert peers_of(done) == {node.peer for node in swarm.nodes}
    assert list(done.token_ids) == greedy(tiny, PROMPT, NUM_TOKENS)


# --- a broken peer in the middle: it has a next hop to harm


def forward(make: Callable[[Step], Step | None]) -> Reply:
    """Send the next hop what ``make`` makes of a step."""

    async def pass_on(server: BrokenServer, message: Step) -> None:
        opened = server.opened[message.session]
        if opened.next is not None:
            link = await server.links.connect(opened.next, opened.next_addresses)
            step = make(dataclasses.replace(message, layer=opened.layers.stop, entry=hidden(8)))
            if step is not None:
                link.send(step)

    def reply(server: BrokenServer, link: Link, message: Step) -> None:
        server.start(pass_on(server, message))

    return at_step(reply)


def replaced(**changes: Any) -> Reply:
    """Forward a step with these fields changed."""
    return forward(lambda step: dataclasses.replace(step, **changes))


MIDDLE_HOP: dict[str, Reply] = {
    "it swallows steps": at_step(ignore),
    "its hidden states are not numbers": replaced(entry=hidden(8, math.nan)),
    "its hidden states are infinite": replaced(entry=hidden(8, math.inf)),
    "its hidden states are too wide": replaced(entry=hidden(8, size=33)),
    "its hidden states have another dtype": replaced(entry=hidden(8, dtype="float16")),
    "it sends tokens": replaced(entry=ids(*PROMPT)),
    "it leaves a gap": replaced(position=3),
    "it sends more than the session holds": replaced(entry=hidden(100)),
    "it names another session": replaced(session=b"x" * 16),
    "it names another epoch": replaced(epoch=7),
    "it names another layer": replaced(layer=7),
    "it says that its next hop cannot be reached": at_open(
        lambda server, link, m: link.send(fault(m, "unreachable", blamed=m.next))
    ),
}


@pytest.mark.parametrize("what", MIDDLE_HOP)
async def test_a_broken_middle_hop_is_replaced_and_harms_no_other_session(
    what: str, tiny: Path, cache: Path
) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        nodes = await swarm.start("0-2", "3-5", "6-8")
        expected = greedy(tiny, PROMPT, 40)
        async with swarm.client() as other, asyncio.TaskGroup() as tasks:
            calm = tasks.create_task(other.generate(PROMPT, max_tokens=40))
            await asyncio.sleep(0.3)
            async with broken_server(swarm, "3-5", MIDDLE_HOP[what]) as broken:
                done = await answer(swarm)
                assert broken.num_asked >= 1
                assert peers_of(done) == {node.peer for node in nodes}
        assert list(done.token_ids) == expected[:NUM_TOKENS]
        assert list(calm.result().token_ids) == expected
        assert calm.result().failovers == 0


# --- a client that keeps the head: its last hop answers hidden states

LOCAL_HEAD: dict[str, Reply] = {
    "it answers tokens": result(5),
    "it answers nothing": result(),
    "its hidden states are not numbers": result(rows=hidden(1, math.nan)),
    "its hidden states are infinite": result(rows=hidden(1, math.inf)),
    "its hidden states are too narrow": result(rows=hidden(1, size=16)),
    "its hidden states have another dtype": result(rows=hidden(1, dtype="float16")),
    "its hidden states are integers": result(rows=hidden(1, dtype="int64")),
    "its hidden states are a row": result(rows=Tensor("float32", (32,), b"\0" * 128)),
}


@pytest.mark.parametrize("what", LOCAL_HEAD)
async def test_a_broken_last_hop_does_not_harm_a_client_that_keeps_the_head(
    what: str, tiny: Path, cache: Path
) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        await swarm.start("0-2", "3-5", "6-8")
        async with broken_server(swarm, "6-8", LOCAL_HEAD[what]) as broken:
            done = await answer(swarm, head="local")
            assert broken.num_asked >= 1
            assert peers_of(done) == {node.peer for node in swarm.nodes}
    assert list(done.token_ids) == greedy(tiny, PROMPT, NUM_TOKENS)


async def test_nobody_but_a_broken_peer_is_an_error_that_names_its_layers(
    tiny: Path, cache: Path
) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        await swarm.start("0-5")
        async with broken_server(swarm, "6-8", result(512)):
            with pytest.raises(NoChain, match="6-8"):
                await answer(swarm)


async def test_several_broken_peers_are_tried_one_after_the_other(tiny: Path, cache: Path) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        nodes = await swarm.start("0-2", "3-5", "6-8")
        async with (
            broken_server(swarm, "6-8", result(512), 0) as first,
            broken_server(swarm, "3-5", at_step(hang_up), 1) as second,
            broken_server(swarm, "0-2", at_open(write(b"\xff" * 100)), 2) as third,
        ):
            done = await answer(swarm)
            assert all(each.num_asked for each in (first, second, third))
            assert peers_of(done) == {node.peer for node in nodes}
    assert list(done.token_ids) == greedy(tiny, PROMPT, NUM_TOKENS)
