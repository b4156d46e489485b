"""Real streams between real daemons on loopback."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from p2pnode.errors import BadRequest, DaemonDied, PeerLost, PeerTimeout
from p2pnode.net.identity import Identity
from p2pnode.net.libp2p_transport import MAX_STREAMS_OF_PEER, P2PTransport
from p2pnode.net.libraries import hivemind
from p2pnode.net.memory import fake_peer_id
from p2pnode.net.transport import ByteStream, Transport
from tests.net.daemons import ECHO, echo, node_and_client, run

__all__ = ["run"]


@pytest.mark.parametrize("kind", ["tcp", "udp"])
async def test_a_client_reaches_a_node(run: Path, kind: str) -> None:
    async with node_and_client(run) as (node, client):
        addresses = tuple(address for address in node.addresses if f"/{kind}/" in address)
        await client.connect(node.peer, addresses)
        stream = await client.open_stream(node.peer, ECHO)
        assert stream.peer == node.peer
        for text in (b"ping", b"pong"):
            stream.write(memoryview(text))
            assert await stream.read_exactly(4) == text


async def test_a_peer_gets_so_many_streams_and_others_get_theirs(run: Path) -> None:
    async with (
        node_and_client(run) as (node, client),
        P2PTransport(Identity.ephemeral(), run, is_client=True) as other,
    ):
        await client.connect(node.peer, node.addresses)
        kept = [await client.open_stream(node.peer, ECHO) for _ in range(MAX_STREAMS_OF_PEER)]
        for stream in kept:
            stream.write(b"ping")
            assert await stream.read_exactly(4) == b"ping"
        too_many = await client.open_stream(node.peer, ECHO)
        with pytest.raises(PeerLost):
            await too_many.read_exactly(4)
        await other.connect(node.peer, node.addresses)
        theirs = await other.open_stream(node.peer, ECHO)
        theirs.write(b"pong")
        assert await theirs.read_exactly(4) == b"pong"


async def test_the_handler_knows_who_opened(run: Path) -> None:
    seen: list[str] = []

    async def note(stream: ByteStream) -> None:
        seen.append(stream.peer)

    async with node_and_client(run) as (node, client):
        await node.serve("/test/note/1", note)
        await client.connect(node.peer, node.addresses)
        stream = await client.open_stream(node.peer, "/test/note/1")
        with pytest.raises(PeerLost):
            await stream.read_exactly(1)
        assert seen == [client.peer]


async def test_megabytes_arrive_whole(run: Path) -> None:
    num_bytes = 4 * 1024 * 1024

    async def swallow(stream: ByteStream) -> None:
        data = await stream.read_exactly(num_bytes)
        stream.write(sum(data).to_bytes(8, "big"))
        await stream.drain()
        await stream.read_exactly(1)

    async with node_and_client(run) as (node, client):
        await node.serve("/test/swallow/1", swallow)
        await client.connect(node.peer, node.addresses)
        stream = await client.open_stream(node.peer, "/test/swallow/1")
        data = bytes(range(256)) * (num_bytes // 256)
        for start in range(0, num_bytes, 65_536):
            stream.write(memoryview(data)[start : start + 65_536])
            await stream.drain()
        assert int.from_bytes(await stream.read_exactly(8), "big") == sum(data)


async def test_a_closed_stream_reads_as_ended_and_refuses_writes(run: Path) -> None:
    async with node_and_client(run) as (node, client):
        await client.connect(node.peer, node.addresses)
        stream = await client.open_stream(node.peer, ECHO)
        stream.close()
        with pytest.raises(PeerLost):
            stream.write(b"ping")
        with pytest.raises(PeerLost):
            await stream.read_exactly(4)
        stream.close()


async def test_connecting_again_costs_nothing_and_needs_no_address(run: Path) -> None:
    async with node_and_client(run) as (node, client):
        await client.connect(node.peer, node.addresses)
        await client.connect(node.peer, ())
        await node.connect(client.peer, ())


async def test_who_cannot_be_reached_is_lost(run: Path) -> None:
    async with node_and_client(run) as (node, client):
        stranger = fake_peer_id(1)
        where = node.addresses[0].partition("/p2p/")[0]
        with pytest.raises(PeerLost, match="names another peer"):
            await client.connect(stranger, node.addresses)
        with pytest.raises(PeerLost, match="another peer answers"):
            await client.connect(stranger, (where,))
        with pytest.raises(PeerLost, match="refused"):
            await client.connect(stranger, ("/ip4/127.0.0.1/tcp/9",))
        with pytest.raises(PeerLost, match="no address"):
            await client.connect(fake_peer_id(2), ("not an address",))
        with pytest.raises(PeerLost):
            await client.open_stream(stranger, ECHO)
        with pytest.raises(PeerLost):
            await client.connect(client.peer, (where,))


async def test_an_unknown_protocol_is_refused(run: Path) -> None:
    async with node_and_client(run) as (node, client):
        await client.connect(node.peer, node.addresses)
        with pytest.raises(PeerLost, match="does not speak"):
            await client.open_stream(node.peer, "/test/unknown/1")


async def test_a_killed_peer_reads_as_an_end_at_once_and_is_found_again(run: Path) -> None:
    identity = Identity.ephemeral()
    async with P2PTransport(Identity.ephemeral(), run, is_client=True) as client:
        async with P2PTransport(identity, run, host="127.0.0.1") as node:
            await node.serve(ECHO, echo)
            addresses, port = node.addresses, node.port
            await client.connect(identity.peer, addresses)
            stream = await client.open_stream(identity.peer, ECHO)
            os.kill(node.daemon_pid, signal.SIGKILL)
            async with asyncio.timeout(1):
                with pytest.raises(PeerLost):
                    await stream.read_exactly(4)
            with pytest.raises(DaemonDied):
                await node.wait_closed()  # its connections end before its listeners
            async with asyncio.timeout(1):
                with pytest.raises(PeerLost):
                    await client.connect(identity.peer, addresses)
        async with P2PTransport(identity, run, host="127.0.0.1", port=port) as node:
            await node.serve(ECHO, echo)
            await client.connect(identity.peer, addresses)
            stream = await client.open_stream(identity.peer, ECHO)
            stream.write(b"ping")
            assert await stream.read_exactly(4) == b"ping"


async def test_the_death_of_our_daemon_fails_everything_that_waits(run: Path) -> None:
    dht_pb2 = hivemind.proto.dht_pb2

    async def never(request: object, context: object) -> object:
        await asyncio.Event().wait()
        return dht_pb2.PingResponse()

    async with node_and_client(run) as (node, client):
        await node.p2p.add_protobuf_handler("never", never, dht_pb2.PingRequest)
        await client.connect(node.peer, node.addresses)
        stream = await client.open_stream(node.peer, ECHO)
        call = client.p2p.call_protobuf_handler(
            node.p2p.peer_id, "never", dht_pb2.PingRequest(), dht_pb2.PingResponse
        )
        failures: list[str] = []

        async def fails(work: object) -> None:
            try:
                await work  # type: ignore[misc]
            except Exception as error:  # noqa: BLE001 (whatever it is, it must come)
                failures.append(type(error).__name__)

        async with asyncio.timeout(1), asyncio.TaskGroup() as tasks:
            for name, work in (
                ("closed", client.wait_closed()),
                ("read", stream.read_exactly(4)),
                ("unary", call),
            ):
                tasks.create_task(fails(work), name=name)
            await asyncio.sleep(0)
            os.kill(client.daemon_pid, signal.SIGKILL)
        assert sorted(failures) == ["DaemonDied", "P2PDaemonError", "PeerLost"]
        with pytest.raises(DaemonDied):
            await client.open_stream(node.peer, ECHO)
        with pytest.raises(DaemonDied):
            await client.connect(node.peer, node.addresses)
        async with asyncio.timeout(1):
            with pytest.raises(Exception, match="p2pd is gone"):
                await client.p2p.call_protobuf_handler(
                    node.p2p.peer_id, "never", dht_pb2.PingRequest(), dht_pb2.PingResponse
                )


async def test_a_daemon_that_does_not_answer_is_not_waited_for(run: Path) -> None:
    async with node_and_client(run) as (node, client):
        await client.connect(node.peer, node.addresses)
        os.kill(client.daemon_pid, signal.SIGSTOP)
        # The signal is sent; only now are all of its threads known to stand.
        await asyncio.to_thread(os.waitid, os.P_PID, client.daemon_pid, os.WSTOPPED | os.WNOWAIT)
        try:
            async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
                tasks.create_task(_times_out(client.open_stream(node.peer, ECHO)))
                tasks.create_task(_times_out(client.connect(node.peer, node.addresses)))
        finally:
            os.kill(client.daemon_pid, signal.SIGCONT)


async def _times_out(work: object) -> None:
    with pytest.raises(PeerTimeout):
        await work  # type: ignore[misc]


async def test_closing_cancels_the_handlers(run: Path) -> None:
    started = asyncio.Event()
    cancelled = asyncio.Event()

    async def wait(stream: ByteStream) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with P2PTransport(Identity.ephemeral(), run, is_client=True) as client:
        async with P2PTransport(Identity.ephemeral(), run, host="127.0.0.1") as node:
            await node.serve("/test/wait/1", wait)
            await client.connect(node.peer, node.addresses)
            stream = await client.open_stream(node.peer, "/test/wait/1")
            await started.wait()
        assert cancelled.is_set()
        async with asyncio.timeout(1):
            with pytest.raises(PeerLost):
                await stream.read_exactly(1)
    names = {task.get_name() for task in asyncio.all_tasks()}
    assert len(names) == 1, names


async def test_an_error_in_the_block_is_not_wrapped(run: Path) -> None:
    with pytest.raises(KeyError):
        async with P2PTransport(Identity.ephemeral(), run, host="127.0.0.1"):
            raise KeyError


async def test_a_bad_announced_address_is_the_callers_fault(run: Path) -> None:
    with pytest.raises(BadRequest):
        async with P2PTransport(Identity.ephemeral(), run, announce=("nowhere",)):
            pass


async def test_the_transport_keeps_the_contract(run: Path) -> None:
    transport: Transport = P2PTransport(Identity.ephemeral(), run)
    assert transport.addresses == ()
