"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

import re
from datetime import time as ClockTime
from pathlib import Path
from typing import Annotated

import typer

from p2pnode.config import SwarmConfig, read_join
from p2pnode.config import home as find_home
from p2pnode.errors import BadRequest
from p2pnode.types import LayerRange


def layer_range(text: str) -> LayerRange:
    """``0-26``; anything else is a usage error."""
    try:
        return LayerRange.parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def clock_time(text: str) -> ClockTime:
    """``23:30``; anything else is a usage error."""
    found = re.fullmatch(r"([01]?[0-9]|2[0-3]):([0-5][0-9])", text)
    if found is None:
        raise typer.BadParameter(f"{text[:40]!r} is not a time like 23:30")
    return ClockTime(int(found[1]), int(found[2]))


def size_bytes(text: str) -> int:
    """``6GB``, ``6GiB``, ``500MB``; anything else, and less than a byte, is a usage error."""
    found = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?) ?([kMGT]i?B)", text)
    num_bytes = int(float(found[1]) * _UNITS[found[2]]) if found else 0
    if num_bytes < 1:
        raise typer.BadParameter(f"{text[:40]!r} is not a size like 6GB or 500MB")
    return num_bytes


_UNITS = {
    f"{letter}{middle}B": base**power
    for power, letter in enumerate("kMGT", start=1)
    for middle, base in (("", 1000), ("i", 1024))
}


def client_swarm(
    join: list[str] | None, home: Path | None, invite: str | None = None, *, lan: bool = False
) -> SwarmConfig:
    """How a command that serves nothing finds its swarm."""
    return SwarmConfig(
        home=find_home(home),
        join=addresses(join),
        invite=invite or "",
        lan=lan,
        starts_swarm=False,
    )


def addresses(join: list[str] | None) -> tuple[str, ...]:
    """The addresses that ``--join`` options name, directly or in files; else a usage error."""
    try:
        return tuple(address for text in join or () for address in read_join(text))
    except BadRequest as error:
        raise typer.BadParameter(str(error), param_hint="--join") from error


Json = Annotated[bool, typer.Option("--json", help="One JSON object per line, for scripts.")]
Home = Annotated[
    Path | None,
    typer.Option(
        "--home", metavar="DIR", help="Where keys, caches and state are kept ($P2PNODE_HOME)."
    ),
]
Join = Annotated[
    list[str] | None,
    typer.Option(
        "--join",
        metavar="ADDR|FILE",
        help="Addresses of peers (or a file of them) to join through; may be repeated. "
        "Without it: nodes of this home, the last good peers, bootstrap_peers.txt.",
    ),
]
Invite = Annotated[
    str | None,
    typer.Option(
        "--invite",
        metavar="TEXT|FILE|NAME",
        help="Into a private swarm: an invite, a file with one (others may see what you type), or "
        "the name of a swarm that this home is in already.",
    ),
]
Lan = Annotated[
    bool, typer.Option("--lan", help="Find nodes of the same network, and be found there (mDNS).")
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="ID|DIR",
        help="A Hugging Face id or a local folder; else the swarm's model, else the built-in one.",
    ),
]
Host = Annotated[str | None, typer.Option("--host", metavar="IP", help="The address to listen on.")]
Port = Annotated[
    int | None,
    typer.Option(
        "--port",
        metavar="PORT",
        min=1,
        max=65535,
        help="TCP and QUIC port; without it 4001, else the next free one.",
    ),
]
Announce = Annotated[
    list[str] | None,
    typer.Option(
        "--announce",
        metavar="ADDR",
        help="The address at which others reach us, e.g. /ip4/203.0.113.7/tcp/4001; "
        "may be repeated.",
    ),
]
Key = Annotated[
    Path | None,
    typer.Option(
        "--key", metavar="FILE", help="Our identity; without it the home's next free key."
    ),
]
