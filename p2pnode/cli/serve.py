"""``p2pnode serve``, and what it shares with ``p2pnode bootstrap``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from p2pnode.cli.options import (
    Announce,
    Home,
    Host,
    Join,
    Json,
    Key,
    Model,
    Port,
    addresses,
    layer_range,
)
from p2pnode.cli.output import Output
from p2pnode.config import NodeConfig, SwarmConfig
from p2pnode.config import home as find_home
from p2pnode.types import LayerRange

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


def serve(
    *,
    layers: Layers,
    model: Model = None,
    join: Join = None,
    host: Host = None,
    port: Port = None,
    announce: Announce = None,
    key: Key = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    home: Home = None,
    json: Json = False,
) -> None:
    """Serve a range of layers to the swarm until Ctrl-C."""
    swarm = node_swarm(join=join, host=host, port=port, announce=announce, key=key, home=home)
    cache = swarm.home.cache
    config = NodeConfig(model=model, layers=layers, device=device, dtype=dtype, cache=cache)
    from p2pnode.cli.node_face import run_node  # heavy: torch, hivemind

    run_node(config, swarm, Output(as_json=json))


def node_swarm(
    *,
    join: list[str] | None,
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
        port=port,
        announce=tuple(announce or ()),
    )
    return config if host is None else replace(config, host=host)
