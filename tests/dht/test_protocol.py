"""Our dialect of Kademlia's calls, between simulated peers, some of them hostile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from p2pnode.dht.backend import DHTID, P2PContext, dht_pb2
from p2pnode.dht.fetch import MAX_IDS
from p2pnode.dht.ids import KEY_OF_ID, node_id_of, to_hivemind
from p2pnode.dht.protocol import MAX_KEYS, MAX_LISTED
from p2pnode.dht.records import ALL_KEYS, ID_BYTES
from p2pnode.lab.overlay import Overlay, OverlayDirectory, directory_of, join, publish_all
from p2pnode.net.memory import fake_identity

pytestmark = pytest.mark.virtual_time

SERVICE = "P2PNodeDirectory2"
LIAR = to_hivemind(fake_identity(9).peer)


@asynccontextmanager
async def swarm(num_nodes: int) -> AsyncIterator[tuple[Overlay, list[OverlayDirectory]]]:
    """The last one is a client."""
    overlay, there = Overlay(), [fake_identity(number) for number in range(num_nodes)]
    directories = [directory_of(overlay, each, is_client=each is there[-1]) for each in there]
    async with directories[0], directories[1], directories[2]:
        for number, directory in enumerate(directories):
            await join(overlay, directory, [each.peer for each in there[:number]])
        yield overlay, directories


def answer_with(overlay: Overlay, find: Any, fetch: Any = None) -> list[str]:
    """Let a liar answer so; the calls it gets."""
    calls: list[str] = []

    async def answer_find(request: Any, _: P2PContext) -> Any:
        calls.append("find")
        return dht_pb2.FindResponse(results=[find] * len(request.keys))

    async def answer_fetch(request: Any, _: P2PContext) -> Any:
        calls.append("fetch")
        return dht_pb2.FindResponse(results=[fetch] * len(request.keys))

    overlay.place(LIAR)
    overlay.handlers[LIAR] = {
        f"{SERVICE}.rpc_find": answer_find,
        f"{SERVICE}.rpc_fetch": answer_fetch,
    }
    return calls


async def test_a_second_reading_fetches_nothing_and_shows_the_same() -> None:
    async with swarm(3) as (overlay, (one, two, client)):
        await publish_all([one, two])
        first = await client.announcements()
        assert {each.peer for each in first} == {one.peer, two.peer}
        before = overlay.traffic.num_calls
        assert await client.announcements() == first
        assert overlay.traffic.num_calls - before == 2 * len(ALL_KEYS) // MAX_KEYS
        await publish_all([one], sequence=2)
        assert {each.sequence for each in await client.announcements()} == {1, 2}


@pytest.mark.parametrize(
    "find",
    [
        dht_pb2.FindResult(value=b"x" * (ID_BYTES - 1)),
        dht_pb2.FindResult(value=b"x" * (ID_BYTES * (MAX_LISTED + 1))),
        dht_pb2.FindResult(nearest_peer_ids=[b"nobody"]),
    ],
)
async def test_an_answer_of_another_form_counts_as_none(find: Any) -> None:
    async with swarm(3) as (overlay, (_, _, client)):
        answer_with(overlay, find)
        assert (
            await client._protocol.find(LIAR, [DHTID(key_id) for key_id in KEY_OF_ID][:MAX_KEYS])
            is None
        )


async def test_listing_what_one_does_not_give_hides_nothing() -> None:
    async with swarm(3) as (overlay, (one, two, _)):
        await publish_all([one, two])
        now = one._clock()
        held = [h for key in ALL_KEYS for h in one._holder.shard(key, now=now).values()]
        listed = b"".join(each.record_id for each in held)
        calls: list[list[str]] = []
        for number, value in enumerate((b"", b"x" * 300, held[0].value[:-1], b"")):
            gives = dht_pb2.FindResult(value=value)
            calls.append(answer_with(overlay, dht_pb2.FindResult(value=listed), gives))
            reader = directory_of(overlay, fake_identity(10 + number), is_client=True)
            async with reader:
                reader._protocol.table.add(node_id_of(LIAR), LIAR, None)
                await join(overlay, reader, [one.peer])
                assert {each.peer for each in await reader.announcements()} == {one.peer, two.peer}
        assert any("fetch" in each for each in calls)


async def test_a_peer_that_answers_fewer_questions_than_it_was_asked_has_failed() -> None:
    async with swarm(3) as (overlay, (_, _, client)):
        answer_with(overlay, dht_pb2.FindResult())

        async def answer_nothing(_: Any, __: P2PContext) -> Any:
            return dht_pb2.FindResponse()

        overlay.handlers[LIAR] = {
            f"{SERVICE}.{name}": answer_nothing for name in ("rpc_find", "rpc_fetch")
        }
        assert await client._protocol.find(LIAR, [DHTID(1)]) is None
        assert await client._protocol.fetch(LIAR, [b"x" * ID_BYTES]) == []


async def test_an_answer_that_is_no_message_is_that_peers_fault_alone() -> None:
    async with swarm(3) as (overlay, (one, two, client)):
        await publish_all([one, two])
        answer_with(overlay, dht_pb2.FindResult())

        async def answer_garbage(_: Any, __: P2PContext) -> Any:
            return dht_pb2.FindResponse.FromString(b"\xff\xff")  # as hivemind reads an answer

        overlay.handlers[LIAR] = {
            f"{SERVICE}.{name}": answer_garbage for name in ("rpc_find", "rpc_fetch")
        }
        assert await client._protocol.find(LIAR, [DHTID(1)]) is None
        assert await client._protocol.fetch(LIAR, [b"x" * ID_BYTES]) == []
        client._protocol.table.add(node_id_of(LIAR), LIAR, None)
        assert {each.peer for each in await client.announcements()} == {one.peer, two.peer}


async def test_who_asks_for_too_much_at_once_gets_nothing() -> None:
    async with swarm(3) as (_, (one, _, _)):
        context = P2PContext("", LIAR, LIAR)
        with pytest.raises(ValueError, match="at most 4"):
            await one._protocol.rpc_find(dht_pb2.FindRequest(keys=[b"k"] * (MAX_KEYS + 1)), context)
        with pytest.raises(ValueError, match="at most 512"):
            await one._protocol.rpc_fetch(dht_pb2.FindRequest(keys=[b"i"] * (MAX_IDS + 1)), context)
        odd = dht_pb2.FindRequest(keys=[b"", b"\xff" * 999])
        assert len((await one._protocol.rpc_find(odd, context)).results) == 2
        assert [r.value for r in (await one._protocol.rpc_fetch(odd, context)).results] == [
            b"",
            b"",
        ]
