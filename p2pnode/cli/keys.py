"""``p2pnode keys``: who this node is."""

from __future__ import annotations

import typer

from p2pnode.cli.options import Home, Json, Key
from p2pnode.cli.output import Output
from p2pnode.config import home as find_home

app = typer.Typer(help="This node's identity.", rich_markup_mode=None)


@app.callback()
def keys() -> None:
    """This node's identity."""


@app.command()
def show(*, key: Key = None, home: Home = None, json: Json = False) -> None:
    """Print this node's peer id and key file, made when there is none."""
    from p2pnode.net.identity import load_or_create  # heavy: libp2p

    file = key or find_home(home).keys / "node.key"
    identity = load_or_create(file)
    output = Output(as_json=json)
    output.result({"peer": identity.peer, "file": str(file.absolute())})
    output.say(f"{identity.peer}  {file.absolute()}")
