"""``p2pnode swarm``: private swarms, their invites, and who is in them no more."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from p2pnode.cli.options import Home, Join, Json, addresses
from p2pnode.cli.output import Output
from p2pnode.config import home as find_home

app = typer.Typer(help="Private swarms: found one, invite, revoke.", rich_markup_mode=None)


def duration(text: str) -> int:
    """``7d``, ``12h``, ``30m``, ``90s``, in seconds; anything else is a usage error."""
    found = re.fullmatch(r"([1-9][0-9]{0,5})([smhd])", text)
    if found is None:
        raise typer.BadParameter(f"{text[:40]!r} is not a time like 7d, 12h or 30m")
    return int(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]


def limits(text: str) -> tuple[int, int]:
    """``2``: sessions; ``2/100000``: and tokens per day; 0 is no limit. Else a usage error."""
    found = re.fullmatch(r"([0-9]{1,5})(?:/([0-9]{1,10}))?", text)
    both = (int(found[1]), int(found[2] or 0)) if found else (1 << 16, 0)
    if both[0] >= 1 << 16 or both[1] >= 1 << 32:
        raise typer.BadParameter(f"{text[:40]!r} is not SESSIONS or SESSIONS/TOKENS-PER-DAY")
    return both


Name = Annotated[str, typer.Argument(metavar="NAME", help="What its members call it.")]
Swarm = Annotated[
    str | None,
    typer.Option(
        "--swarm", metavar="NAME", help="Which one, where this home is in more than one swarm."
    ),
]


@app.callback()
def swarm() -> None:
    """Private swarms: found one, invite, revoke."""


@app.command()
def create(name: Name, *, home: Home = None, json: Json = False) -> None:
    """Found a private swarm; its key stays in this home."""
    from p2pnode.cli.swarm_face import created  # heavy: libp2p
    from p2pnode.swarm.membership import found

    created(found(find_home(home), name), Output(as_json=json))


@app.command()
def invite(
    *,
    swarm: Swarm = None,
    use: Annotated[bool, typer.Option("--use", help="To generate; this is the default.")] = False,
    serve: Annotated[bool, typer.Option("--serve", help="To generate and to serve.")] = False,
    admin: Annotated[
        bool, typer.Option("--admin", help="To generate, to serve, to invite and to revoke.")
    ] = False,
    expires: Annotated[
        str, typer.Option("--expires", metavar="TIME", help="E.g. 7d, 12h, 30m.")
    ] = "7d",
    quota: Annotated[
        str,
        typer.Option(
            "--quota",
            metavar="SESSIONS[/TOKENS]",
            help="At most so many sessions at a time, and tokens per day, at each node.",
        ),
    ] = "0",
    peer: Annotated[
        str | None,
        typer.Option(
            "--for",
            metavar="PEER",
            help="Only for the home with this peer's key (see p2pnode keys show): no secret.",
        ),
    ] = None,
    join: Join = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Make an invite: one line, enough to join. Whoever uses it first is in."""
    from p2pnode.cli.swarm_face import Wanted, invited  # heavy: libp2p

    right = "admin" if admin else "serve" if serve else "use"
    wanted = Wanted(right, duration(expires), limits(quota), peer)
    invited(find_home(home), swarm, wanted, addresses(join), Output(as_json=json))


@app.command()
def revoke(
    key: Annotated[
        str, typer.Argument(metavar="ID|INVITE", help="Of an invite or a member; see swarm show.")
    ],
    *,
    swarm: Swarm = None,
    join: Join = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Throw out whoever came in by an invite, and all whom they invited; tells the nodes."""
    from p2pnode.cli.run import run_async
    from p2pnode.cli.swarm_face import revoked  # heavy: hivemind

    run_async(revoked(find_home(home), swarm, key, addresses(join), Output(as_json=json)))


@app.command()
def show(*, swarm: Swarm = None, home: Home = None, json: Json = False) -> None:
    """What this home knows of its private swarms: rights, invites used, revocations."""
    from p2pnode.cli.swarm_face import shown  # heavy: libp2p

    shown(find_home(home), swarm, Output(as_json=json))
