"""hivemind's `P2P` on our daemon, for the DHT's calls, with its two leaks mended.

It never notices that the daemon is gone (calls wait for ever, `is_alive` stays true), and it
leaves its tasks behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from p2pnode.errors import DaemonDied
from p2pnode.net.libraries import P2P, Multiaddr, P2PDaemonError

START_TIMEOUT_S = 5.0
STOP_TIMEOUT_S = 1.0


@asynccontextmanager
async def replicated(socket: Path) -> AsyncIterator[Any]:
    """A `hivemind.p2p.P2P` on the daemon behind ``socket``; raises DaemonDied."""
    # Where it would make a socket is an attribute of the class: hence a class of our own.
    ours: Any = type("P2P", (P2P,), {"_UNIX_SOCKET_PREFIX": f"/unix{socket.parent}/"})
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            p2p = await ours.replicate(Multiaddr(f"/unix{socket}"))
    except (OSError, EOFError, P2PDaemonError) as error:
        raise DaemonDied("p2pd hung up at the start") from error
    except TimeoutError as error:
        raise DaemonDied(f"p2pd did not answer within {START_TIMEOUT_S:g} s") from error
    try:
        yield p2p
    finally:
        fail_calls(p2p)
        await p2p.shutdown()
        control = p2p._client.control
        tasks = [control._read_task, control._write_task, *control._handler_tasks.values()]
        for task in tasks:
            task.cancel()
        ended, _ = await asyncio.wait(tasks, timeout=STOP_TIMEOUT_S)
        for task in ended:
            # Asked for, so that asyncio does not complain that nobody did.
            _ = task.cancelled() or task.exception()


def fail_calls(p2p: Any) -> None:
    """The daemon is gone: pending and later calls raise `P2PDaemonError` at once."""
    control = p2p._client.control
    control._pending_messages = _Closed()
    for call in list(control._pending_calls.values()):
        if not call.done():
            call.set_exception(P2PDaemonError("p2pd is gone"))


class _Closed:
    """A queue that nobody empties any more."""

    async def put(self, item: object) -> None:
        raise P2PDaemonError("p2pd is gone")

    async def get(self) -> object:
        raise P2PDaemonError("p2pd is gone")
