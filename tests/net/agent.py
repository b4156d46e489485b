"""A process with a transport, for tests that kill it: prints the daemon's pid, then waits.

Usage: python -m tests.net.agent RUN_FOLDER
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import uvloop

from p2pnode.net.identity import Identity
from p2pnode.net.libp2p_transport import P2PTransport


async def main(run: Path) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with P2PTransport(Identity.ephemeral(), run, host="127.0.0.1") as transport:
        sys.stdout.write(f"{transport.daemon_pid}\n")
        sys.stdout.flush()
        await stopped.wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(Path(sys.argv[1])))
