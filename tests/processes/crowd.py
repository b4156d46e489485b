"""What a crowd of peers costs a daemon: ``python -m tests.processes.crowd --peers 1000``.

Each peer has a key and a connection of its own, over TCP, Noise and yamux (py-libp2p).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import psutil
import trio

from p2pnode.net.identity import Identity
from p2pnode.net.libp2p_transport import P2PTransport  # before libp2p: see `net.libraries`

STEP = 100


async def run(num_peers: int) -> None:
    """Say what the daemon holds after each hundred."""
    with tempfile.TemporaryDirectory(prefix="p2p-", dir="/tmp") as folder:
        async with P2PTransport(Identity.ephemeral(), Path(folder), host="127.0.0.1") as node:
            daemon = psutil.Process(node.daemon_pid)
            (address, *_) = node.addresses
            await asyncio.to_thread(trio.run, _crowd, address, num_peers, daemon)


async def _crowd(address: str, num_peers: int, daemon: psutil.Process) -> None:
    from libp2p import new_host
    from libp2p.crypto.ed25519 import create_new_key_pair
    from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
    from libp2p.peer.peerinfo import info_from_p2p_addr
    from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
    from libp2p.security.noise.transport import Transport as NoiseTransport
    from multiaddr import Multiaddr

    _say(0, daemon)
    async with AsyncExitStack() as stack:
        for number in range(1, num_peers + 1):
            keys = create_new_key_pair()
            noise = NoiseTransport(keys, noise_privkey=create_noise_key_pair().private_key)
            host = new_host(key_pair=keys, sec_opt={NOISE: noise}, muxer_preference="YAMUX")
            await stack.enter_async_context(host.run(listen_addrs=[]))
            await host.connect(info_from_p2p_addr(Multiaddr(address)))
            if number % STEP == 0:
                _say(number, daemon)


def _say(num_peers: int, daemon: psutil.Process) -> None:
    memory_mb, descriptors = round(daemon.memory_info().rss / 1e6, 1), daemon.num_fds()
    found = {"peers": num_peers, "daemon_mb": memory_mb, "descriptors": descriptors}
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m tests.processes.crowd")
    parser.add_argument("--peers", type=int, default=1000)
    asyncio.run(run(parser.parse_args().peers))


if __name__ == "__main__":
    main()
