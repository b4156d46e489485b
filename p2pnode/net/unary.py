"""hivemind's `P2P` on our daemon, for the DHT's calls, with its faults mended.

- It never notices that the daemon is gone: calls wait for ever, `is_alive` stays true.
- An answer that comes in the instant in which its call is given up ends the task that reads all
  answers and requests, and nobody is told: from then on every call waits in vain.
- A request that its asker has given up is remembered for ever.
- It leaves its tasks behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

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
    control = p2p._client.control
    control._pending_calls = _Pending(control._pending_calls)
    control._handler_tasks = _Handling(control._handler_tasks)
    # Whatever else may end it: the writer closes the connection, and with it the daemon ends.
    control._read_task.add_done_callback(lambda _: control._write_task.cancel())
    try:
        yield p2p
    finally:
        fail_calls(p2p)
        await p2p.shutdown()
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


class _Pending(dict[UUID, "asyncio.Future[Any]"]):
    """Calls that wait for an answer; one that was given up is not among them any more."""

    def __contains__(self, call_id: object) -> bool:
        call = self.get(call_id)  # type: ignore[call-overload]
        return call is not None and not call.done()


class _Handling(dict[UUID, "asyncio.Task[None]"]):
    """Requests that are being answered; one that ended in whatever way is not among them."""

    def __setitem__(self, call_id: UUID, task: asyncio.Task[None]) -> None:
        super().__setitem__(call_id, task)
        task.add_done_callback(lambda _: self.pop(call_id, None))


class _Closed:
    """A queue that nobody empties any more."""

    async def put(self, item: object) -> None:
        raise P2PDaemonError("p2pd is gone")

    async def get(self) -> object:
        raise P2PDaemonError("p2pd is gone")
