"""A node on the command line: what `serve` and `bootstrap` run and show."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from p2pnode.cli.exits import ReaderGone
from p2pnode.cli.output import Output, ProgressBar
from p2pnode.cli.run import Signals, run_async
from p2pnode.config import NodeConfig, SwarmConfig
from p2pnode.log import escape
from p2pnode.node.node import Node
from p2pnode.swarm.p2p_network import node_network


def run_node(
    config: NodeConfig, swarm: SwarmConfig, output: Output, http_port: int | None = None
) -> None:
    """Run a node until a signal ends it; with ``http_port`` a gateway beside it."""
    face = NodeFace(output, ProgressBar("loading"))
    node = Node(config, node_network(swarm), face.on_event)

    def stop() -> bool:
        face.on_event("stopping", {})
        return node.leave()

    signals = Signals(on_stop=stop, is_end_normal=True)
    running = node.run()
    if http_port is not None:
        from p2pnode.cli.gateway_face import beside_node  # heavy: fastapi

        running = beside_node(running, face.is_serving, config, swarm, http_port, output)
    run_async(face.watch(running), signals)


@dataclass(slots=True)
class NodeFace:
    """Shows what a node does: its events for scripts, a few lines for people."""

    output: Output
    bar: ProgressBar
    command: asyncio.Task[None] | None = None
    is_serving: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the node has said so."""
    is_read: bool = True
    """Until whoever reads our output has gone, which ends the node."""

    async def watch(self, running: Coroutine[Any, Any, None]) -> None:
        """Run a node; raises ReaderGone when nobody reads what it says any more."""
        self.command = asyncio.current_task()
        try:
            with self.bar:
                await running
        except asyncio.CancelledError:
            if self.is_read:
                raise
            raise ReaderGone from None

    def on_event(self, event: str, fields: dict[str, Any]) -> None:
        """See `OnEvent`; called by whatever part of the node, so it never raises."""
        if event == "serving":
            self.is_serving.set()
        try:
            if self.is_read:
                self._show(event, fields)
        except ReaderGone:
            self.is_read = False
            if self.command is not None and event != "stopping":
                self.command.cancel()

    def _show(self, event: str, fields: dict[str, Any]) -> None:
        if event == "loading":
            self.bar.update(fields["done_bytes"], fields["total_bytes"], escape(fields["what"]))
            return
        self.bar.stop()
        self.output.event(event, **fields)
        line = _line(event, fields)
        if line:
            self.output.say(line)


def _line(event: str, fields: dict[str, Any]) -> str:
    """What people read of an event; empty for none."""
    match event:
        case "listening":
            return _listening(fields)
        case "serving":
            name, layers = escape(fields["model"]), fields["layers"]
            return f"serving    layers {layers} of {name} in {fields['dtype']}; Ctrl-C leaves"
        case "session_opened" | "session_closed":
            what = event.replace("_", " ")
            return f"{what}: layers {fields['layers']} for client {fields['client'][-8:]}"
        case "stopping":
            return "stopping; sessions move to others, Ctrl-C again stops at once"
    return ""


def _listening(fields: dict[str, Any]) -> str:
    lines = [f"peer       {fields['peer']}"]
    lines += [f"listening  {address}" for address in fields["addresses"]]
    if fields.get("founded"):
        lines.append("swarm      a new one: nobody answered; still looking for others")
    if "swarm" in fields:
        lines.append(f"private    {escape(fields['swarm'], 40)}; others join with an invite:")
        lines.append(f"           p2pnode swarm invite --swarm {escape(fields['swarm'], 40)}")
    elif fields["addresses"]:
        join = f"p2pnode serve --layers FIRST-LAST --join {fields['addresses'][0]}"
        lines.append(f"to join    {join}")
    return "\n".join(lines)
