"""The doctor's part of `p2pnode bench gateway`: how long its answer takes, imports included."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

from p2pnode.bench.chains import local_chain
from p2pnode.bench.parts import Part, Setup
from p2pnode.bench.result import Row, at_most
from p2pnode.config import inherited_environment
from p2pnode.errors import LocalError

NUM_LAYERS = 27
ROUNDS, QUICK_ROUNDS = 5, 2
WITHIN_S = 60.0


async def answers(setup: Setup) -> list[Row]:
    """`doctor_s`: of a healthy chain of three, and `doctor_alone_s`: where nobody answers."""
    folder = setup.folder / "doctor"
    folder.mkdir()
    healthy: list[float] = []
    alone: list[float] = []
    async with local_chain(folder, None, NUM_LAYERS, 3, setup.note) as chain:
        address = chain.nodes[0].address
        for number in range(setup.few(ROUNDS, QUICK_ROUNDS)):
            setup.note(f"asking the doctor, round {number + 1}")
            healthy.append(await _took(folder / "own", address, "none"))
            nobody = address.rpartition("/tcp/")[0] + "/tcp/9" + address[address.index("/p2p/") :]
            alone.append(await _took(folder / "own", nobody, "discovery"))
    return [
        at_most("doctor_s", healthy, "s", 15.0),
        at_most("doctor_alone_s", alone, "s", 15.0),
    ]


async def _took(home: Path, address: str, cause: str) -> float:
    """Seconds until it has answered; raises LocalError for another cause than that."""
    command = ("-m", "p2pnode", "doctor", "--json", "--home", str(home), "--join", address)
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=inherited_environment(),
    )
    try:
        async with asyncio.timeout(WITHIN_S):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    took_s = time.perf_counter() - began
    found = json.loads(said)["cause"]
    if found != cause:
        raise LocalError(f"the doctor found {found}, not {cause}")
    return took_s


PARTS: tuple[tuple[str, Part], ...] = (("doctor_s", answers),)
