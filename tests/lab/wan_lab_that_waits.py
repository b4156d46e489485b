"""A lab with two machines that says the process id of its emulator, then waits to be killed."""

from __future__ import annotations

import asyncio
import sys

from p2pnode.lab.wan.network import WanNetwork
from p2pnode.lab.wan.packets import Access


async def main() -> None:
    async with WanNetwork() as network:
        for name in ("a", "b"):
            await network.add(name, Access())
        sys.stdout.write(f"{network.emulator_pid}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


asyncio.run(main())
