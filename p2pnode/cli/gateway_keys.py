"""``p2pnode gateway keys``: the API keys of this home's gateways."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from p2pnode.cli.options import Home, Json
from p2pnode.cli.output import Output
from p2pnode.config import home as find_home
from p2pnode.log import escape

app = typer.Typer(help="API keys of the gateways of this home.", rich_markup_mode=None)

Rate = Annotated[
    int | None, typer.Option("--rate", min=1, help="Requests per minute with this key.")
]
AtATime = Annotated[
    int | None, typer.Option("--concurrent", min=1, help="Requests at a time with this key.")
]


@app.callback()
def keys() -> None:
    """API keys of the gateways of this home."""


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Whose it is, for people.")],
    *,
    rate: Rate = None,
    concurrent: AtATime = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Make a key and print it, once: only its hash is kept. From now on a key is needed."""
    from p2pnode.gateway.keys import KeyFile  # only where it is needed

    file = KeyFile(find_home(home).gateway_keys)
    key, secret = file.add(name, requests_per_minute=rate, concurrent_requests=concurrent)
    output = Output(as_json=json)
    output.result({**_fields(key), "key": secret})
    output.say(secret)
    output.note(f"key {key.id} for {escape(name)}; it is shown this once")


@app.command("list")
def list_(*, home: Home = None, json: Json = False) -> None:
    """Show whose keys there are, and their limits."""
    from p2pnode.gateway.keys import KeyFile  # only where it is needed

    found = KeyFile(find_home(home).gateway_keys).keys()
    output = Output(as_json=json)
    output.result({"keys": [_fields(key) for key in found]})
    output.table(("ID", "NAME", "MADE", "RATE", "CONCURRENT"), [_row(key) for key in found])


@app.command()
def remove(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.")],
    *,
    home: Home = None,
    json: Json = False,
) -> None:
    """Refuse a key from now on, in running gateways, too."""
    from p2pnode.gateway.keys import KeyFile  # only where it is needed

    gone = KeyFile(find_home(home).gateway_keys).remove(key_id)
    output = Output(as_json=json)
    output.result(_fields(gone))
    output.say(f"removed key {gone.id} of {escape(gone.name)}")


def _fields(key: Any) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "created_at": key.created_at,
        "requests_per_minute": key.requests_per_minute,
        "concurrent_requests": key.concurrent_requests,
    }


def _row(key: Any) -> tuple[str, ...]:
    made = time.strftime("%Y-%m-%d", time.localtime(key.created_at))
    limits = (key.requests_per_minute, key.concurrent_requests)
    return (key.id, escape(key.name), made, *("" if each is None else str(each) for each in limits))
