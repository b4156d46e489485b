"""``p2pnode plan``: what a model would take, how fast it would be, and whether to split it."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import typer

from p2pnode.cli.options import Home, Join, Json, client_swarm, size_bytes
from p2pnode.cli.output import Output
from p2pnode.errors import BadRequest

BYTES_PER_GB = 1e9
BYTES_PER_MBIT = 125_000
MAX_LIST = 64


def plan(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A folder, a config.json, a hub id, or builtin. Weights are not needed.",
        ),
    ],
    *,
    vram: Annotated[
        str | None,
        typer.Option(
            "--vram",
            metavar="GB,GB,...",
            help="The memory of each machine, e.g. 8,24 or 500MB,6GiB; without it this machine's.",
        ),
    ] = None,
    bandwidth: Annotated[
        str | None,
        typer.Option(
            "--bandwidth",
            metavar="GB/S,...",
            help="How fast each machine of --vram reads its memory (one figure: all of them); "
            "without it 300, a small GPU.",
        ),
    ] = None,
    rtt: Annotated[
        float | None,
        typer.Option(
            "--rtt",
            metavar="MS",
            help="The round trip between any two of them; without it 40, with --swarm what "
            "gossip says.",
        ),
    ] = None,
    uplink: Annotated[
        float | None,
        typer.Option(
            "--uplink",
            metavar="MBIT",
            help="How fast each can send; without it 20, with --swarm what is announced.",
        ),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(
            "--context",
            metavar="N",
            help="Tokens of a session, all in all; without it 2048, or what the model holds.",
        ),
    ] = None,
    batch: Annotated[
        int, typer.Option("--batch", metavar="N", help="Sessions at the same time.")
    ] = 1,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"],
        typer.Option("--dtype", help="What it computes in."),
    ] = "bfloat16",
    quant: Annotated[
        Literal["none", "int8", "nf4"],
        typer.Option("--quant", help="How the weights are quantised."),
    ] = "none",
    swarm: Annotated[
        bool,
        typer.Option("--swarm", help="Plan for the machines of the swarm, as they are announced."),
    ] = False,
    watts: Annotated[
        float | None,
        typer.Option("--watts", metavar="W", help="What each machine takes while it serves."),
    ] = None,
    price_kwh: Annotated[
        float | None,
        typer.Option("--price-kwh", metavar="P", help="What a kWh costs; needs --watts too."),
    ] = None,
    cloud_price: Annotated[
        float | None,
        typer.Option(
            "--cloud-price", metavar="P", help="What a cloud asks for a million tokens, to compare."
        ),
    ] = None,
    join: Join = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Say what a model takes, and whether and how to split it."""
    if swarm and (vram or bandwidth):
        raise typer.BadParameter("--swarm asks the swarm; leave --vram and --bandwidth out")
    if (watts is None) != (price_kwh is None):
        raise typer.BadParameter("--watts and --price-kwh make a price together")
    memories = numbers(vram, "--vram", BYTES_PER_GB)
    speeds = numbers(bandwidth, "--bandwidth", BYTES_PER_GB)
    if speeds and len(speeds) not in (1, len(memories)):
        raise typer.BadParameter("--bandwidth: one figure, or one for each machine of --vram")
    from p2pnode.cli.plan_face import Asked, show_plan  # heavy: torch

    asked = Asked(
        model=model,
        dtype=dtype,
        quant="" if quant == "none" else quant,
        context_tokens=context,
        batch=batch,
        memories_bytes=tuple(map(int, memories)),
        memory_bytes_per_s=tuple(speeds * len(memories) if len(speeds) == 1 else speeds),
        rtt_s=None if rtt is None else rtt / 1e3,
        up_bytes_per_s=None if uplink is None else uplink * BYTES_PER_MBIT,
        watts=watts,
        price_kwh=price_kwh,
        cloud_price=cloud_price,
    )
    show_plan(asked, client_swarm(join, home), asks_swarm=swarm, output=Output(as_json=json))


def numbers(text: str | None, option: str, unit: float) -> list[float]:
    """``8,24`` in that unit, or sizes like ``500MB``; anything else is a usage error."""
    if text is None:
        return []
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > MAX_LIST:
        raise typer.BadParameter(f"at most {MAX_LIST} machines", param_hint=option)
    return [_number(part, option, unit) for part in parts]


def _number(text: str, option: str, unit: float) -> float:
    if re.fullmatch(r"[0-9]{1,7}(\.[0-9]{1,6})?", text) and float(text) > 0:
        return float(text) * unit
    try:
        return float(size_bytes(text))
    except (typer.BadParameter, BadRequest):
        what = f"{text[:40]!r} is not a number of GB, like 24, or a size, like 500MB"
        raise typer.BadParameter(what, param_hint=option) from None
