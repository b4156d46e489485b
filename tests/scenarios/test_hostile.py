"""Peers that break the rules: each is stopped, nothing leaks, others go on."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest

from p2pnode.lab.swarm import LocalSwarm
from p2pnode.net.memory import fake_peer_id
from p2pnode.types import LayerRange, Tensor
from p2pnode.wire.messages import (
    Close,
    Closed,
    Fault,
    Opened,
    Refused,
    Reroute,
    Result,
    Step,
)
from tests.scenarios.bystanders import (
    LATENCY_S,
    PROMPT,
    assert_nothing_held,
    num_held,
    undisturbed,
)
from tests.support.hostile import (
    SESSION,
    hidden,
    hostile_peer,
    ids,
    step,
)
from tests.support.models import greedy

pytestmark = pytest.mark.virtual_time


def _steps_that_end_the_link() -> dict[str, Step]:
    return {
        "a token beyond the vocabulary": step(0, ids(1, 512)),
        "a negative token": step(0, ids(1, -1)),
        "hidden states of another width": step(0, hidden(2, size=31)),
        "hidden states of another dtype": step(0, hidden(2, dtype="float16")),
        "integers as hidden states": step(0, hidden(2, dtype="int64")),
        "floats as tokens": step(0, Tensor("float32", (2,), b"\0" * 8)),
        "more than the session may hold": step(0, ids(*range(17))),
    }


@pytest.mark.parametrize("what", _steps_that_end_the_link())
async def test_a_step_that_no_honest_client_sends_ends_its_link_and_frees_its_sessions(
    what: str, tiny: Path, cache: Path
) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        (node,) = await swarm.start("0-8")
        async with undisturbed(swarm, tiny), hostile_peer(swarm) as stranger:
            peer = await stranger.dial(node)
            peer.send(stranger.open())
            assert isinstance(await peer.receive(), Opened)
            peer.send(_steps_that_end_the_link()[what])
            await peer.wait_ended()
        await assert_nothing_held(node)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another revision": ({"fingerprint": "0" * 64}, "fingerprints differ"),
    "other numerics": ({"numerics": "bfloat16"}, "computes in float32"),
    "layers that it does not serve": ({"layers": LayerRange(5, 10)}, "serves layers 0-8"),
    "more tokens than the model holds": ({"max_tokens": 257}, "holds 256 tokens"),
    "a sampled token of a middle layer": ({"layers": LayerRange(0, 5)}, "no head"),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_an_open_that_cannot_be_served_is_refused_and_says_why(
    what: str, tiny: Path, cache: Path
) -> None:
    changes, reason = REFUSED[what]
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        (node,) = await swarm.start("0-8")
        async with hostile_peer(swarm) as stranger:
            peer = await stranger.dial(node)
            peer.send(stranger.open(**changes))
            refused = await peer.receive()
            assert isinstance(refused, Refused)
            assert reason in refused.reason
            peer.send(stranger.open())  # the link is still good
            assert isinstance(await peer.receive(), Opened)
        await assert_nothing_held(node)


async def test_more_sessions_than_the_limit_are_refused_until_one_is_closed(
    tiny: Path, cache: Path
) -> None:
    config = {"max_sessions": 3}
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S, config=config) as swarm:
        (node,) = await swarm.start("0-8")
        async with hostile_peer(swarm) as stranger:
            peer = await stranger.dial(node)
            for number in range(5):
                peer.send(stranger.open(session=bytes([number]) * 16))
            answers = [await peer.receive() for _ in range(5)]
            assert [type(answer) for answer in answers] == [Opened] * 3 + [Refused] * 2
            assert answers[-1].retry_after_s > 0
            peer.send(Close(session=b"\1" * 16, layer=0))
            assert isinstance(await peer.receive(), Closed)
            peer.send(stranger.open())
            assert isinstance(await peer.receive(), Opened)
        await assert_nothing_held(node)


async def test_a_gap_and_an_unknown_session_are_told_and_the_session_goes_on(
    tiny: Path, cache: Path
) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        (node,) = await swarm.start("0-8")
        async with hostile_peer(swarm) as stranger:
            peer = await stranger.dial(node)
            peer.send(stranger.open(send_from=len(PROMPT) - 1))
            assert isinstance(await peer.receive(), Opened)
            for odd, kind in (
                (step(3, ids(1)), "gap"),
                (step(0, ids(1), session=b"x" * 16), "unknown"),
                (step(0, ids(1), layer=3), "unknown"),
                (_reroute(SESSION, layer=2), "unknown"),
            ):
                peer.send(odd)
                fault = await peer.answer(Fault)
                assert (fault.fault, fault.session, fault.layer) == (kind, odd.session, odd.layer)
            peer.send(step(0, ids(1), epoch=2))  # of no epoch that we know: dropped
            peer.send(step(0, ids(*PROMPT)))
            result = await peer.answer(Result, Fault)
            assert list(result.token_ids) == greedy(tiny, PROMPT, 1)
        await assert_nothing_held(node)


def _reroute(session: bytes, *, layer: int = 0, epoch: int = 9, **changes: Any) -> Reroute:
    fields: dict[str, Any] = {"position": 0, "previous": None, "next": None, "send_from": 0}
    fields |= {"next_addresses": (), "token_ids": None, **changes}
    return Reroute(session=session, layer=layer, epoch=epoch, **fields)


async def test_a_stranger_who_knows_a_session_can_do_nothing_with_it(
    tiny: Path, cache: Path
) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        (node,) = await swarm.start("0-8")
        async with hostile_peer(swarm) as owner, hostile_peer(swarm, 1) as stranger:
            mine, theirs = await owner.dial(node), await stranger.dial(node)
            mine.send(owner.open(send_from=len(PROMPT) - 1))
            assert isinstance(await mine.receive(), Opened)
            theirs.send(stranger.open(epoch=5))
            refused = await theirs.receive()
            assert isinstance(refused, Refused)
            assert "another client" in refused.reason
            for odd in (step(0, ids(7, 8)), step(5, ids(7)), step(0, ids(999)), _reroute(SESSION)):
                theirs.send(odd)
                answer = await theirs.receive()
                assert isinstance(answer, Fault)
                assert answer.fault == "unknown"
            theirs.send(Close(session=SESSION, layer=0))
            await asyncio.sleep(0.1)
            mine.send(step(0, ids(*PROMPT)))
            result = await mine.answer(Result, Fault)
            assert list(result.token_ids) == greedy(tiny, PROMPT, 1)
        await assert_nothing_held(node)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
async def test_values_that_are_not_finite_are_a_fault_of_the_input(
    value: float, tiny: Path, cache: Path
) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        (node,) = await swarm.start("0-8")
        async with undisturbed(swarm, tiny), hostile_peer(swarm) as stranger:
            peer = await stranger.dial(node)
            peer.send(stranger.open())
            assert isinstance(await peer.receive(), Opened)
            peer.send(step(0, hidden(3, value)))
            fault = await peer.answer(Fault, Result)
            assert fault.fault == "input"
            peer.send(step(0, hidden(3)))  # the same session, once more with numbers
            assert isinstance(await peer.answer(Result, Fault), Result)
        await assert_nothing_held(node)


QUARRELS: dict[str, tuple[dict[str, Any], str]] = {
    "less room at the second": ({"max_tokens": 4}, "input"),
    "a neighbour that the second does not know": ({"previous": None}, "unknown"),
    "a second that was never opened": ({"session": b"z" * 16}, "unknown"),
}


@pytest.mark.parametrize("what", QUARRELS)
async def test_a_client_cannot_make_two_honest_nodes_quarrel(
    what: str, tiny: Path, cache: Path
) -> None:
    """The link between two nodes is shared: what one client contrives must not end it."""
    changes, kind = QUARRELS[what]
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        first, second = await swarm.start("0-4", "5-8")
        async with undisturbed(swarm, tiny), hostile_peer(swarm) as stranger:
            one, two = await stranger.dial(first), await stranger.dial(second)
            lower, upper = LayerRange(0, 5), LayerRange(5, 9)
            two.send(stranger.open(**{"layers": upper, "previous": first.peer, **changes}))
            addresses = swarm.network.transports[second.peer].addresses
            one.send(stranger.open(layers=lower, next=second.peer, next_addresses=addresses))
            assert isinstance(await two.receive(), Opened)
            assert isinstance(await one.receive(), Opened)
            one.send(step(0, ids(*PROMPT)))
            told = one if kind == "unknown" else two
            fault = await told.answer(Fault)
            assert (fault.fault, fault.layer) == (kind, 5)
        await assert_nothing_held(first, second)


async def test_a_next_hop_that_cannot_be_is_a_fault_and_holds_nothing(
    tiny: Path, cache: Path
) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        (node,) = await swarm.start("0-8")
        async with undisturbed(swarm, tiny), hostile_peer(swarm) as stranger:
            peer = await stranger.dial(node)
            for number, (following, addresses) in enumerate(
                [
                    (stranger.peer, ()),
                    (stranger.peer, ("nonsense", "/ip4/999.1.1.1/tcp/99999999")),
                    (fake_peer_id(77), ("/memory/1",)),
                ]
            ):
                session = bytes([number]) * 16
                nowhere = {"next": following, "next_addresses": addresses}
                peer.send(stranger.open(session=session, layers=LayerRange(0, 5), **nowhere))
                fault = await peer.answer(Fault, Opened, Refused)
                assert (fault.fault, fault.blamed) == ("unreachable", following)
            assert num_held(node) == 1, "only the honest client's"
        await assert_nothing_held(node)


@pytest.mark.parametrize("is_told", [True, False], ids=["it knows of the ring", "it does not"])
@pytest.mark.parametrize("num_fed", [0, 4, 16])
async def test_a_ring_that_cannot_be_harms_nobody(
    num_fed: int, is_told: bool, tiny: Path, cache: Path
) -> None:
    """One node has both ends, of one session that does not fit together."""
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        (node,) = await swarm.start("0-8")
        async with undisturbed(swarm, tiny), hostile_peer(swarm) as stranger:
            peer = await stranger.dial(node)
            first = {"layers": LayerRange(0, 5), "sampling": None}
            peer.send(stranger.open(**first, ring=node.peer if is_told else None))
            peer.send(stranger.open(layers=LayerRange(5, 9), max_tokens=64, ring=node.peer))
            for _ in range(2):
                await peer.answer(Opened)
            if num_fed:
                peer.send(step(0, ids(*range(num_fed)), layer=0))
                await peer.answer(Result)
            for position in (0, 16):  # the second time another token goes round
                peer.send(step(position, hidden(16), layer=5))
                result = await peer.answer(Result)
                assert (result.layer, result.position) == (5, position)
            for layer in (0, 5):
                peer.send(Close(session=SESSION, layer=layer))
                await peer.answer(Closed)
        await assert_nothing_held(node)


async def test_a_storm_of_requests_ends_the_one_who_makes_it(tiny: Path, cache: Path) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        (node,) = await swarm.start("0-8")
        async with undisturbed(swarm, tiny), hostile_peer(swarm) as stranger:
            swarm.network.silence(node.peer, fake_peer_id(77))  # a black hole
            peer = await stranger.dial(node)
            peer.send(stranger.open())
            assert isinstance(await peer.receive(), Opened)
            hole: dict[str, Any] = {"next": fake_peer_id(77), "next_addresses": ("/memory/1",)}
            for epoch in range(2, 600):
                peer.send(_reroute(SESSION, epoch=epoch, **hole))
            await peer.wait_ended()
        await assert_nothing_held(node)
