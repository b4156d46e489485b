"""``p2pnode serve``, and what it shares with ``p2pnode bootstrap``."""

from __future__ import annotations

from dataclasses import replace
from datetime import time as ClockTime
from pathlib import Path
from typing import Annotated, Literal

import typer

from p2pnode.cli.options import (
    Announce,
    Home,
    Host,
    Invite,
    Join,
    Json,
    Key,
    Lan,
    Model,
    Port,
    addresses,
    clock_time,
    layer_range,
    size_bytes,
)
from p2pnode.cli.output import Output
from p2pnode.config import NodeConfig, SwarmConfig
from p2pnode.config import home as find_home
from p2pnode.types import LayerRange

BYTES_PER_MBIT = 125_000

Layers = Annotated[
    LayerRange,
    typer.Option(
        "--layers",
        parser=layer_range,
        metavar="FIRST-LAST",
        help="The decoder layers to serve, both included, e.g. 0-26.",
    ),
]
Device = Annotated[
    str,
    typer.Option("--device", help="auto takes CUDA, XPU, MPS, CPU in this order; or e.g. cuda:1."),
]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    typer.Option("--dtype", help="auto chooses by device and model size, and says what it took."),
]
Wire = Annotated[
    Literal["exact", "int8"],
    typer.Option(
        "--wire",
        help="int8 halves what travels between hops, and changes answers a little: all hops of a "
        "chain do it, or none. The model must have passed: p2pnode model check --wire int8.",
    ),
]
Quant = Annotated[
    Literal["none", "int8", "nf4"],
    typer.Option(
        "--quant",
        help="Quantise the layers' weights: int8 takes half of bfloat16's memory, nf4 less than a "
        "third, and answers change. All hops of a chain do it, or none.",
    ),
]
Until = Annotated[
    ClockTime | None,
    typer.Option(
        "--until",
        parser=clock_time,
        metavar="HH:MM",
        help="Leave at this time of day: take no new sessions, hand over those that run.",
    ),
]
MaxSessions = Annotated[
    int, typer.Option("--max-sessions", min=1, help="Refuse more generations at a time than this.")
]
Vram = Annotated[
    int | None,
    typer.Option(
        "--vram",
        parser=size_bytes,
        metavar="SIZE",
        help="Use no more memory than this for layers and sessions, e.g. 6GB.",
    ),
]
Uplink = Annotated[
    float | None,
    typer.Option(
        "--uplink",
        metavar="MBIT",
        min=0.001,
        help="How fast we can send, in Mbit/s. Others choose by it; nothing is slowed down to it.",
    ),
]
PauseWhenBusy = Annotated[
    bool,
    typer.Option(
        "--pause-when-busy",
        help="Refuse new sessions while you use this machine's processor or GPU yourself.",
    ),
]
Http = Annotated[
    int | None,
    typer.Option(
        "--http",
        metavar="PORT",
        min=0,
        max=65535,
        help="Answer HTTP requests of this machine, too, as `p2pnode gateway` does; 0 takes any.",
    ),
]


def serve(
    *,
    layers: Layers,
    model: Model = None,
    join: Join = None,
    invite: Invite = None,
    lan: Lan = False,
    host: Host = None,
    port: Port = None,
    announce: Announce = None,
    key: Key = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    wire: Wire = "exact",
    quant: Quant = "none",
    until: Until = None,
    max_sessions: MaxSessions = 64,
    vram: Vram = None,
    uplink: Uplink = None,
    pause_when_busy: PauseWhenBusy = False,
    http: Http = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Serve a range of layers to the swarm until Ctrl-C."""
    swarm = node_swarm(
        join=join,
        invite=invite,
        lan=lan,
        host=host,
        port=port,
        announce=announce,
        key=key,
        home=home,
    )
    cache = swarm.home.cache
    config = NodeConfig(
        model=model,
        layers=layers,
        device=device,
        dtype=dtype,
        wire="" if wire == "exact" else wire,
        quant="" if quant == "none" else quant,
        cache=cache,
        max_sessions=max_sessions,
        vram_bytes=vram,
        up_bytes_per_s=(uplink or 0.0) * BYTES_PER_MBIT,
        until=until,
        pauses_when_busy=pause_when_busy,
    )
    from p2pnode.cli.node_face import run_node  # heavy: torch, hivemind

    run_node(config, swarm, Output(as_json=json), http_port=http)


def node_swarm(
    *,
    join: list[str] | None,
    invite: str | None,
    lan: bool,
    host: str | None,
    port: int | None,
    announce: list[str] | None,
    key: Path | None,
    home: Path | None,
) -> SwarmConfig:
    """How a node finds its swarm and is found, from the options of `serve` and `bootstrap`."""
    config = SwarmConfig(
        home=find_home(home),
        key=key,
        join=addresses(join),
        invite=invite or "",
        lan=lan,
        port=port,
        announce=tuple(announce or ()),
    )
    return config if host is None else replace(config, host=host)
