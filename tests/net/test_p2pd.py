"""The daemon child: its ports, its death, and that nothing of it is ever left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from multiaddr import Multiaddr

from p2pnode.errors import DaemonDied, PortBusy
from p2pnode.net.addresses import is_quic
from p2pnode.net.identity import Identity, load_or_create
from p2pnode.net.p2pd import Daemon
from p2pnode.net.run_folder import run_folder

LOOPBACK = "127.0.0.1"
NOT_OURS = "192.0.2.7"
"""Nobody can listen at an address of another machine."""


@pytest.fixture
def run() -> Iterator[Path]:
    """A folder with a short path: pytest's own is too long for sockets."""
    with tempfile.TemporaryDirectory(prefix="p2p-", dir="/tmp") as folder:
        yield Path(folder)


@asynccontextmanager
async def daemon(
    run: Path, *, port: int | None = None, is_client: bool = False
) -> AsyncIterator[Daemon]:
    identity = Identity.ephemeral()
    with run_folder(run) as folder:
        async with Daemon(
            identity, folder, host=LOOPBACK, port=port, is_client=is_client
        ) as started:
            yield started


async def gone(pid: int) -> None:
    """Return when that process has ended, whoever its parent is."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        loop.add_reader(descriptor, ended.set)
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def test_it_listens_on_one_number_for_tcp_and_quic_and_leaves_nothing(run: Path) -> None:
    async with daemon(run) as started:
        pid, port = started.pid, started.port
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(socket.AF_INET, kind) as probe, pytest.raises(OSError):
                probe.bind((LOOPBACK, port))
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert list(run.iterdir()) == []


async def test_the_second_takes_another_port(run: Path) -> None:
    async with daemon(run) as first, daemon(run) as second:
        assert min(first.port, second.port) >= 4001
        assert first.port != second.port


async def test_several_that_start_at_once_get_different_ports(run: Path) -> None:
    ports: list[int] = []
    all_started = asyncio.Barrier(4)

    async def start() -> None:
        async with daemon(run) as started:
            ports.append(started.port)
            await all_started.wait()

    async with asyncio.TaskGroup() as tasks:
        for number in range(4):
            tasks.create_task(start(), name=f"daemon-{number}")
    assert len(set(ports)) == 4


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
async def test_an_explicit_busy_port_is_an_error(run: Path, kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_INET, kind) as other:
        other.bind((LOOPBACK, 0))
        port = other.getsockname()[1]
        with pytest.raises(PortBusy, match=str(port)):
            async with daemon(run, port=port):
                pass
    async with daemon(run, port=port) as started:
        assert started.port == port


async def test_a_port_of_another_daemon_is_busy(run: Path) -> None:
    async with daemon(run) as first:
        with pytest.raises(PortBusy):
            async with daemon(run, port=first.port):
                pass


async def test_a_client_listens_too_so_that_who_cannot_be_dialled_can_dial_it(run: Path) -> None:
    async with daemon(run, is_client=True) as started:
        assert started.port > 0
        _, found = await started.control.identify()
        kinds = {is_quic(Multiaddr(address)) for address in found}
        assert kinds == {True, False}


async def test_a_client_that_gets_no_port_does_without(run: Path) -> None:
    with run_folder(run) as folder:
        async with Daemon(Identity.ephemeral(), folder, host=NOT_OURS, is_client=True) as started:
            assert started.port == 0
            _, found = await started.control.identify()
            assert found == []


async def test_its_crash_is_noticed_within_a_second(run: Path) -> None:
    async with daemon(run) as started:
        os.kill(started.pid, signal.SIGKILL)
        async with asyncio.timeout(1):
            with pytest.raises(DaemonDied, match="status -9"):
                await started.wait_died()
            with pytest.raises(DaemonDied):
                await started.control.connected_peers()


async def test_one_that_does_not_end_is_killed(run: Path) -> None:
    async with asyncio.timeout(5):
        async with daemon(run) as started:
            pid = started.pid
            os.kill(pid, signal.SIGSTOP)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_key_that_it_cannot_read_is_told(run: Path) -> None:
    identity = load_or_create(run / "node.key")
    (run / "node.key").write_bytes(b"not a key")
    with run_folder(run) as folder, pytest.raises(DaemonDied, match="status 1"):
        async with Daemon(identity, folder, host=LOOPBACK):
            pass


async def test_cancelling_the_start_leaves_no_daemon(run: Path) -> None:
    pids: list[int] = []
    identity = Identity.ephemeral()
    with run_folder(run) as folder:
        started = Daemon(identity, folder, host=LOOPBACK)

        async def start() -> None:
            async with started:
                pass

        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(start(), name="start")
            while not started.pid:  # noqa: ASYNC110 (no event says that the child exists)
                await asyncio.sleep(0)
            pids.append(started.pid)
            task.cancel()
    async with asyncio.timeout(1):
        await gone(pids[0])


async def test_no_daemon_outlives_its_agent_and_no_socket_the_next_start(run: Path) -> None:
    async with AsyncExitStack() as stack:
        agents = [await stack.enter_async_context(_agent(run)) for _ in range(3)]
        daemons = [int(await agent.stdout.readline()) for agent in agents if agent.stdout]
        assert len(list(run.glob("live-*/*.sock"))) >= 6
        agents[0].send_signal(signal.SIGTERM)
        # Ctrl-C goes to the whole process group.
        os.killpg(agents[1].pid, signal.SIGINT)
        agents[2].kill()
        async with asyncio.timeout(1):
            for pid in daemons:
                await gone(pid)
        statuses = [await agent.wait() for agent in agents]
    assert statuses == [0, 0, -signal.SIGKILL]
    (left,) = run.glob("live-*")
    assert list(left.glob("*.sock"))
    with run_folder(run) as folder:
        assert list(run.iterdir()) == [folder]


@asynccontextmanager
async def _agent(run: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.net.agent",
        str(run),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
