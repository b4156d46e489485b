"""``p2pnode lab``: swarms under laboratory conditions, and what becomes of the text in them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from p2pnode.cli.options import Home, Json
from p2pnode.cli.output import Output
from p2pnode.config import home as find_home

FAULTS = (
    "kill, kill-agent, kill-daemon, stall, drop, slow, loss, thin, partition, corrupt, oom, "
    "disk-full, clock"
)

app = typer.Typer(help="Break swarms on purpose, and see.", rich_markup_mode=None)

Transport = Annotated[
    str,
    typer.Option(
        "--transport",
        metavar="auto|namespaces|memory",
        help="Real processes in network namespaces, or one process on virtual time; auto takes "
        "namespaces where this machine allows them.",
    ),
]


@app.callback()
def lab() -> None:
    """Break swarms on purpose, and see."""


@app.command("run")
def run_file(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A scenario in TOML.")],
    *,
    transport: Transport = "auto",
    home: Home = None,
    json: Json = False,
) -> None:
    """Run the scenario of a file.

    Its tokens are compared with those of the unsplit model.
    """
    from p2pnode.cli.lab_face import show_run  # heavy: torch

    show_run(file, transport, find_home(home), Output(as_json=json))


@app.command()
def sweep(
    *,
    fault: Annotated[str, typer.Option("--fault", metavar="KIND", help=f"One of {FAULTS}.")],
    hops: Annotated[int, typer.Option("--hops", metavar="N", help="Hops of the chain.")] = 3,
    tokens: Annotated[
        int, typer.Option("--tokens", metavar="N", help="Tokens of each generation.")
    ] = 64,
    delay_ms: Annotated[
        float, typer.Option("--delay-ms", metavar="MS", help="One way, between any two.")
    ] = 20.0,
    standby: Annotated[
        bool, typer.Option("--standby/--no-standby", help="Whether hops have warm standbys.")
    ] = True,
    prompt_tokens: Annotated[
        int, typer.Option("--prompt-tokens", metavar="N", help="Length of the prompt.")
    ] = 16,
    model: Annotated[
        str,
        typer.Option("--model", metavar="tiny|builtin|DIR", help="tiny is random and quick."),
    ] = "tiny",
    trials: Annotated[
        int | None,
        typer.Option(
            "--trials", metavar="N", help="So many, evenly spread; else every hop at every token."
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="12 trials.")] = False,
    transport: Transport = "auto",
    home: Home = None,
    json: Json = False,
) -> None:
    """Break every hop at every token.

    One generation each. What was interrupted goes on where it was, on the same commit.
    """
    from p2pnode.cli.lab_face import show_sweep, sweep_of  # heavy: torch

    settings = sweep_of(
        fault,
        hops=hops,
        tokens=tokens,
        delay_ms=delay_ms,
        standby=standby,
        prompt_tokens=prompt_tokens,
        model=model,
        trials=trials,
        is_quick=quick,
    )
    show_sweep(settings, transport, find_home(home), Output(as_json=json))


@app.command()
def soak(
    *,
    minutes: Annotated[
        float, typer.Option("--minutes", metavar="N", min=0.1, help="How long to load and kill.")
    ] = 3.0,
    home: Home = None,
    json: Json = False,
) -> None:
    """Kill and start nodes under load.

    Real processes of the built-in model; one dies and one joins every 20 s.
    """
    from p2pnode.cli.lab_face import show_soak  # heavy: torch

    show_soak(minutes, find_home(home), Output(as_json=json))


@app.command()
def scale(
    *,
    nodes: Annotated[
        int, typer.Option("--nodes", metavar="N", min=20, max=5000, help="How many.")
    ] = 1000,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Another swarm.")] = 0,
    json: Json = False,
) -> None:
    """Simulate a large swarm.

    The real directory, gossip and routing over simulated wires: what finding, hearing and choosing
    cost.
    """
    from p2pnode.cli.lab_face import show_scale  # heavy: torch

    show_scale(nodes, seed, Output(as_json=json))
