"""A private swarm from its founding to a friend's first answer, each in a home of their own.

python examples/private_swarm.py
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import p2pnode

COMMAND = (sys.executable, "-m", "p2pnode")


def told(*arguments: str) -> dict[str, str]:
    """What a command says, as one JSON object."""
    made = subprocess.run((*COMMAND, *arguments, "--json"), stdout=subprocess.PIPE, check=True)
    answer: dict[str, str] = json.loads(made.stdout)
    return answer


async def ask(folder: Path, address: str, invite: str = "") -> str:
    """An answer, or why there is none."""
    try:
        async with p2pnode.Client(folder=folder, join=[address], invite=invite) as client:
            return (await client.generate("Once upon a time", max_tokens=20)).text
    except p2pnode.JoinFailed as error:
        return f"{error.kind}: {error}"


def main(folder: Path) -> None:
    """Found, serve, invite; then a friend and a stranger ask."""
    founder = str(folder / "founder")
    told("swarm", "create", "club", "--home", founder)
    node = subprocess.Popen(
        (*COMMAND, "serve", "--layers", "0-26", "--invite", "club", "--home", founder, "--json"),
        stdout=subprocess.PIPE,
    )
    try:
        address = ""
        for line in node.stdout or ():
            event = json.loads(line)
            address = event["addresses"][0] if event["event"] == "listening" else address
            if event["event"] == "serving":
                break
        invite = told("swarm", "invite", "--use", "--home", founder)["invite"]
        print("a friend:", asyncio.run(ask(folder / "friend", address, invite)))
        print("a stranger:", asyncio.run(ask(folder / "stranger", address)))
    finally:
        node.terminate()
        node.wait()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
