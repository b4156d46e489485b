"""A peer of the lab without a model: it links to whom it is told to, and says how that went.

Each line of stdin is a `LinkTo`; each answer is one event.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from p2pnode.errors import P2PNodeError, PeerError
from p2pnode.lab.wan.records import decode
from p2pnode.net.identity import Identity
from p2pnode.net.libp2p_transport import P2PTransport
from p2pnode.net.link import Link
from p2pnode.net.links import Links
from p2pnode.net.reach import Reach
from p2pnode.types import PeerId


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkTo:
    """Open a chain link, as a hop does to the next one."""

    peer: str
    addresses: tuple[str, ...] = ()


class Deaf:
    """Hears nothing of what happens on links."""

    def on_message(self, link: Link, message: Any) -> None:
        """See `LinkEvents`."""

    def on_lost(self, link: Link, error: PeerError) -> None:
        """See `LinkEvents`."""


def say(event: str, **fields: Any) -> None:
    """One event, at once."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


async def run(folder: Path) -> None:
    """The program: until its stdin ends."""
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    async with (
        P2PTransport(Identity.ephemeral(), folder) as ground,
        Reach(ground) as transport,
        Links(
            transport, Deaf(), software="test", connect_timeout_s=5.0, heartbeat=(1.0, 10.0)
        ) as links,
    ):
        await links.serve()
        say("ready", peer=transport.peer, addresses=transport.addresses)
        async for line in commands:
            command = decode(line, {"LinkTo": LinkTo})
            peer, began = PeerId.parse(command.peer), loop.time()
            try:
                await links.connect(peer, command.addresses)
                took_s = loop.time() - began
                await transport.check()  # from here on we know whether we can be dialled
                where = (await ground.observed())[peer]
                say("linked", where=where, took_s=took_s, is_dialable=transport.is_dialable)
            except P2PNodeError as error:
                say("apart", message=str(error), took_s=loop.time() - began)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(Path(sys.argv[1])))
