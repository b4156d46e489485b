"""``p2pnode keys``: who this node is."""

from __future__ import annotations

from pathlib import Path

import typer

from p2pnode.cli.options import Home, Json, Key
from p2pnode.cli.output import Output

app = typer.Typer(help="This node's identity.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def keys() -> None:
    """This node's identity."""


@app.command()
def show(*, key: Key = None, home: Home = None, json: Json = False) -> None:
    """Print the peer id of a key, made when there is none, and where it is kept."""
    from p2pnode.config import NodeConfig
    from p2pnode.net.identity import load_or_create  # heavy: libp2p

    file: Path = key or NodeConfig.make(home=home).keys / "node.key"
    identity = load_or_create(file)
    output = Output(as_json=json)
    output.result({"peer": identity.peer, "file": str(file.absolute())})
    output.say(f"{identity.peer}  {file.absolute()}")
