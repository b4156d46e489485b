"""A picture of the swarm as it is drawn in a terminal; what peers wrote is escaped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import ConsoleDimensions, Group, RenderableType
from rich.table import Table
from rich.text import Text

from p2pnode.log import escape
from p2pnode.types import LayerRange, PeerId

COLUMNS = ("PEER", "LAYERS", "DTYPE", "DEVICE", "MEMORY", "TOKENS/S", "STEP", "RTT", "SESSIONS")
COLUMNS_OF_HEALTH = ("HEALTH", "AGE")
MAP_MARGIN = 12
"""Columns beside the map: the peer's name."""
NOTHING, HELD = "·", "█"
NONE = "-"
THIN_STYLES = {0: "bold white on red", 1: "yellow"}
"""How layers look that nobody, or one peer only, serves."""
WELL_STYLE = "green"
HEALTH_STYLES = {"alive": "green", "suspect": "yellow", "dead": "red", "leaving": "yellow"}


def screen(swarm: dict[str, Any], size: ConsoleDimensions) -> RenderableType:
    """Everything, as far as there is room."""
    peers = swarm["peers"]
    if not peers:
        return Text("nobody serves a model here; q quits")
    models = swarm["models"]
    room = max(4, (size.height - 3 - 3 * len(models)) // 2)
    shown: list[RenderableType] = []
    for model in models:
        own = [peer for peer in peers if peer["fingerprint"] == model["fingerprint"]]
        shown += [_title(model, len(own)), *coverage(model, own[:room], size.width)]
    shown += [Text(""), _table(peers[:room])]
    if len(peers) > room:
        shown.append(Text(f"and {len(peers) - room} more", style="dim"))
    shown.append(Text("q quits", style="dim"))
    return Group(*shown)


def _title(model: dict[str, Any], num_peers: int) -> Text:
    name = escape(model["model"], 60)
    text = f"{name} ({escape(model['fingerprint'][:8])}): {model['num_layers']} layers"
    gaps = model["uncovered"]
    if gaps:
        missing = f", nobody serves {', '.join(gaps)}"
        return Text(f"{text}, {num_peers} peers").append(missing, style="bold red")
    return Text(f"{text}, {num_peers} peers, all covered")


# --- layers x peers


def coverage(model: dict[str, Any], peers: Sequence[dict[str, Any]], width: int) -> Iterator[Text]:
    """How many peers serve each layer, and below it a row for each peer."""
    num_layers = model["num_layers"]
    columns = _columns(num_layers, max(10, width - MAP_MARGIN))
    depths = [0] * num_layers
    for each in model["coverage"]:
        for layer in LayerRange.parse(each["layers"]):
            depths[layer] += each["num_peers"]
    row = Text(f"{'PEERS':10}  ", style="dim")
    for layers in columns:
        depth = min(depths[layer] for layer in layers)
        row.append(_digit(depth), style=THIN_STYLES.get(depth, WELL_STYLE))
    yield row
    for peer in peers:
        held = LayerRange.parse(peer["layers"])
        style = HEALTH_STYLES[health_word(peer)]
        cells = "".join(
            HELD if held.start < layers.stop and layers.start < held.stop else NOTHING
            for layers in columns
        )
        yield Text(f"{PeerId(peer['peer']).short:10}  ").append(cells, style=style)


def _columns(num_layers: int, most: int) -> list[range]:
    """The layers of each column: one of them, or several where the terminal is narrow."""
    count = min(num_layers, most)
    edges = [index * num_layers // count for index in range(count + 1)]
    return [range(edges[index], edges[index + 1]) for index in range(count)]


def _digit(depth: int) -> str:
    return str(depth) if depth < 10 else "+"


# --- peers


def health_word(peer: dict[str, Any]) -> str:
    """``alive`` as long as gossip has not told otherwise."""
    health = peer["health"]
    if health is None:
        return "alive"
    if health["liveness"] == "alive" and health["is_draining"]:
        return "leaving"
    return str(health["liveness"])


def _table(peers: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in (*COLUMNS, *COLUMNS_OF_HEALTH):
        table.add_column(column, no_wrap=True)
    for peer in peers:
        word = health_word(peer)
        cells = [Text(cell) for cell in _cells(peer)]
        health = Text(_health(peer, word), style=HEALTH_STYLES[word])
        table.add_row(*cells, health, Text(f"{peer['age_s']:.0f} s"))
    return table


def _cells(peer: dict[str, Any]) -> tuple[str, ...]:
    health = peer["health"] or {}
    step_s = health.get("step_s") or peer["latency_s"]
    free, total = peer["vram_free_bytes"] / 1e9, peer["vram_total_bytes"] / 1e9
    return (
        PeerId(peer["peer"]).short,
        peer["layers"],
        escape(peer["dtype"], 20),
        escape(f"{peer['device']} {peer['device_name']}", 20),
        f"{free:.1f} of {total:.1f} GB",
        f"{peer['tokens_per_s']:.0f}",
        f"{step_s * 1e3:.1f} ms",
        NONE if peer["rtt_s"] is None else f"{peer['rtt_s'] * 1e3:.0f} ms",
        str(health.get("num_sessions", NONE)),
    )


def _health(peer: dict[str, Any], word: str) -> str:
    errors = (peer["health"] or {}).get("errors", {})
    told = ", ".join(f"{escape(kind, 20)} {count}" for kind, count in sorted(errors.items()))
    return f"{word}; {told}" if told else word
