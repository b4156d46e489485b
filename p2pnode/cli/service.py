"""``p2pnode service``: a node that starts with this machine, kept by systemd."""

from __future__ import annotations

from typing import Annotated

import typer

from p2pnode.cli.options import Home, Json
from p2pnode.cli.output import Output
from p2pnode.cli.serve import serve
from p2pnode.config import home as find_home
from p2pnode.errors import BadRequest

app = typer.Typer(
    help="A node that starts with this machine (systemd).",
    rich_markup_mode=None,
    epilog="Example: p2pnode service install -- --layers 0-8",
)

System = Annotated[
    bool,
    typer.Option(
        "--system", help="As a user of its own, from boot on (root); else as you, from login on."
    ),
]


@app.callback()
def service() -> None:
    """A node that starts with this machine (systemd)."""


@app.command()
def install(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="OPTIONS", help="Behind two dashes: what `p2pnode serve` is started with."
        ),
    ],
    *,
    system: System = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the unit, and change nothing.")
    ] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Write a hardened unit that runs `p2pnode serve`, and start it now and at each start."""
    check_serve(arguments)
    from p2pnode.cli import service_face

    folder = None if home is None and system else find_home(home).folder
    unit = service_face.make_unit(arguments, home=folder, is_system=system)
    output = Output(as_json=json)
    if dry_run:
        output.result({"file": None, "unit": unit.render()})
        output.say(unit.render().rstrip())
        return
    service_face.install(unit, service_face.Systemd(is_system=system), output)


@app.command()
def status(*, system: System = False, json: Json = False) -> None:
    """Say whether the service is installed, and whether it runs."""
    from p2pnode.cli import service_face

    service_face.show_status(service_face.Systemd(is_system=system), Output(as_json=json))


@app.command()
def remove(*, system: System = False, json: Json = False) -> None:
    """Stop the service and remove its unit; keys and models stay."""
    from p2pnode.cli import service_face

    service_face.remove(service_face.Systemd(is_system=system), Output(as_json=json))


def check_serve(arguments: list[str]) -> None:
    """Raises a usage error unless `p2pnode serve` would take them."""
    for word in arguments:
        if not word.isprintable():
            raise BadRequest("an option with control characters cannot be in a unit")
    if any(word in ("--help", "--json") for word in arguments):
        raise typer.BadParameter("a service has no use for --help and --json")
    inner = typer.Typer(add_completion=False)
    inner.command()(serve)
    typer.main.get_command(inner).make_context("p2pnode serve", list(arguments))
