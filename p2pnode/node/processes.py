"""Real ``p2pnode serve`` processes on loopback; whatever ends us ends them, by process id."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from p2pnode.config import inherited_environment
from p2pnode.errors import LocalError
from p2pnode.log import escape
from p2pnode.net.parent import die_with_parent
from p2pnode.tasks import Tasks
from p2pnode.types import LayerRange, PeerId

LISTENING_WITHIN_S = 60.0
SERVING_WITHIN_S = 120.0
LEAVE_WITHIN_S = 5.0
HOST = "127.0.0.1"


@dataclass(slots=True, eq=False)
class NodeProcess:
    """One ``p2pnode serve`` on this machine."""

    layers: LayerRange
    process: asyncio.subprocess.Process
    log_file: Path
    peer: PeerId | None = None
    """Known when it listens; so is ``address``."""
    address: str = ""

    def kill(self) -> None:
        """SIGKILL: it has no chance to say good-bye. Its p2pd goes with it, by itself."""
        self.process.kill()

    async def wait_for(self, event: str) -> dict[str, Any]:
        """Read its events up to that one; raises LocalError when it ends before."""
        async for fields in self._events():
            if fields.get("event") == event:
                return fields
        lines = self.log_file.read_text(errors="replace").splitlines() or ["it said nothing"]
        raise LocalError(f"the node for layers {self.layers} ended: {escape(lines[-1], 500)}")

    async def drain(self) -> None:
        """Go on reading, so that the node can go on writing."""
        async for _ in self._events():
            pass

    async def _events(self) -> AsyncGenerator[dict[str, Any], None]:
        if self.process.stdout is None:
            return
        async for line in self.process.stdout:
            yield json.loads(line)


class NodeProcesses:
    """Nodes of one swarm and one home. ``async with`` ends all that it has started."""

    def __init__(
        self,
        home: Path,
        *,
        model: str | None = None,
        environment: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        patience: float = 1.0,
    ) -> None:
        """model: a folder or hub id, None for the built-in one; environment: added to ours.

        options: more of `p2pnode serve`; the last one counts
        patience: how many times longer than usual a node may take to start
        """
        self.nodes: list[NodeProcess] = []
        self._home = home
        self._model = model
        self._environment = environment
        self._options = options
        self._patience = patience
        self._drains = Tasks()

    async def __aenter__(self) -> Self:
        await self._drains.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for node in self.nodes:
            with contextlib.suppress(ProcessLookupError):
                node.process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(LEAVE_WITHIN_S):
                for node in self.nodes:
                    await node.process.wait()
        except TimeoutError:
            for node in self.nodes:
                with contextlib.suppress(ProcessLookupError):
                    node.process.kill()
        await self._drains.__aexit__(kind, error, trace)

    async def listen(self, layers: LayerRange, join: str = "") -> NodeProcess:
        """Start a node and wait until others can join through it."""
        node = await self._start(layers, join)
        async with _deadline(node, LISTENING_WITHIN_S * self._patience):
            listening = await node.wait_for("listening")
        node.peer = PeerId.parse(listening["peer"])
        node.address = listening["addresses"][0]
        return node

    async def serve(self, node: NodeProcess) -> None:
        """Wait until a node that listens serves its layers."""
        async with _deadline(node, SERVING_WITHIN_S * self._patience):
            await node.wait_for("serving")
        self._drains.start(node.drain(), name=f"drain-{node.layers}")

    def of(self, peer: PeerId) -> NodeProcess:
        """The node with that peer id."""
        return next(node for node in self.nodes if node.peer == peer)

    async def _start(self, layers: LayerRange, join: str) -> NodeProcess:
        number = len(self.nodes) + 1
        log_file = self._home / f"node-{number}.log"
        arguments = ["-m", "p2pnode", "serve", "--json", "--layers", str(layers)]
        # float32 on the CPU everywhere: the comparison with the unsplit model is then exact.
        arguments += ["--device", "cpu", "--dtype", "float32", "--host", HOST]
        arguments += ["--home", str(self._home), *(["--join", join] if join else [])]
        arguments += [*(["--model", self._model] if self._model else []), *self._options]
        with log_file.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                # Ctrl-C is for us: we end the nodes when we have closed what we hold of them.
                start_new_session=True,
                preexec_fn=die_with_parent(),
                env=inherited_environment(self._environment),
            )
        node = NodeProcess(layers, process, log_file)
        self.nodes.append(node)
        return node


@contextlib.asynccontextmanager
async def _deadline(node: NodeProcess, seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        what = f"the node for layers {node.layers} was not ready within {seconds:.0f} s"
        raise LocalError(f"{what}; is this machine busy? Try again") from error
