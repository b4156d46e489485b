"""Calls over the daemon that are given up, and their answers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import uuid4

import pytest

from p2pnode.errors import DaemonDied
from p2pnode.net.identity import Identity
from p2pnode.net.libp2p_transport import P2PTransport
from p2pnode.net.libraries import hivemind
from tests.net.daemons import node_and_client, run

__all__ = ["run"]


async def test_an_answer_to_a_call_that_was_given_up_harms_no_other(run: Path) -> None:
    ping = hivemind.proto.dht_pb2.PingRequest

    async def echoed(request: object, context: object) -> object:
        return request

    async with node_and_client(run) as (node, client):
        await node.p2p.add_protobuf_handler("echo", echoed, ping)
        await client.connect(node.peer, node.addresses)
        control, pb = client.p2p._client.control, hivemind.proto.p2pd_pb2
        given_up, call_id = asyncio.Future[bytes](), uuid4()
        given_up.cancel()
        control._pending_calls[call_id] = given_up
        asked = pb.CallUnaryRequest(peer=node.p2p.peer_id.to_bytes(), proto="echo", data=b"")
        message = pb.PersistentConnectionRequest(callId=call_id.bytes, callUnary=asked)
        await control._pending_messages.put(message)
        async with asyncio.timeout(5):  # its answer comes after the other's
            await client.p2p.call_protobuf_handler(node.p2p.peer_id, "echo", ping(), ping)
            await client.p2p.call_protobuf_handler(node.p2p.peer_id, "echo", ping(), ping)


async def test_a_request_that_its_asker_gives_up_is_forgotten(run: Path) -> None:
    ping = hivemind.proto.dht_pb2.PingRequest
    asked, ended = asyncio.Event(), asyncio.Event()

    async def never(request: object, context: object) -> object:
        asked.set()
        try:
            return await asyncio.Future[object]()
        finally:
            ended.set()

    async with node_and_client(run) as (node, client):
        await node.p2p.add_protobuf_handler("never", never, ping)
        await client.connect(node.peer, node.addresses)
        call = client.p2p.call_protobuf_handler(node.p2p.peer_id, "never", ping(), ping)
        async with asyncio.timeout(5):
            task = asyncio.create_task(call)
            await asked.wait()
            task.cancel()
            await ended.wait()
            await client.p2p.list_peers()  # one more turn of the loop
        assert not node.p2p._client.control._handler_tasks


async def test_when_nobody_reads_answers_any_more_the_transport_has_failed(run: Path) -> None:
    async with P2PTransport(Identity.ephemeral(), run, host="127.0.0.1") as node:
        node.p2p._client.control._read_task.cancel()
        async with asyncio.timeout(5):
            with pytest.raises(DaemonDied):
                await node.wait_closed()
