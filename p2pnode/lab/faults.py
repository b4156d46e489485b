"""What each kind of fault is, where it can be made, and how the in-memory lab makes it.

| kind | namespaces | memory |
|---|---|---|
| kill | SIGKILL of agent and daemon | streams end, tasks are cancelled |
| kill-agent, kill-daemon | one of the two | like ``kill``: there is one process only |
| stall | SIGSTOP | bytes are accepted, nothing comes back |
| drop | silence both ways, for everybody | the same |
| slow | a duty cycle of SIGSTOP and SIGCONT | compute takes `SLOW_FACTOR` times as long |
| loss, thin | the node's link | the same, the lost share as late bytes |
| partition | the node cut off, healed after ``for_s`` | the same |
| corrupt | every frame it sends has a wrong byte in its prefix | the same |
| oom | a forward raises torch's out-of-memory error | the same |
| disk-full | its home is on a full disk | its home is no folder any more |
| clock | its wall clock jumps | the same |
"""

from __future__ import annotations

import asyncio
import dataclasses
import shutil

from p2pnode.lab.scenario import DEADLY, Fault, FaultKind
from p2pnode.lab.swarm import LabNode, LocalSwarm
from p2pnode.net.memory import Line
from p2pnode.types import PeerId

SLOW_FACTOR = 5.0
LOSS = 0.10
THIN_MBIT = 20.0
PARTITION_S = 5.0
"""How long a partition lasts when nobody says."""
BYTES_PER_MBIT = 1e6 / 8

BREAKING = DEADLY | {FaultKind.STALL, FaultKind.DROP, FaultKind.PARTITION, FaultKind.CORRUPT}
"""Kinds after which the victim is of no use: a session must have moved away from it."""


class MemoryFaults:
    """Makes faults in a `LocalSwarm`, and ends those that last for a while."""

    def __init__(self, swarm: LocalSwarm) -> None:
        self._swarm = swarm
        self._lines: dict[tuple[PeerId, PeerId], Line] = {}

    def make(self, fault: Fault, node: LabNode) -> None:
        """Do it now; for a while if the fault says so."""
        self._set(fault, node)
        lasts_s = fault.for_s
        if fault.kind is FaultKind.PARTITION and lasts_s is None:
            lasts_s = PARTITION_S
        if lasts_s is not None:
            asyncio.get_running_loop().call_later(lasts_s, self._end, fault, node)

    def _set(self, fault: Fault, node: LabNode) -> None:
        swarm, conditions = self._swarm, node.conditions
        match fault.kind:
            case FaultKind.KILL | FaultKind.KILL_AGENT | FaultKind.KILL_DAEMON:
                swarm.kill(node)
            case FaultKind.STALL:
                swarm.freeze(node)
            case FaultKind.DROP | FaultKind.PARTITION:
                swarm.cut_off(node)
            case FaultKind.SLOW:
                conditions.slow_factor = SLOW_FACTOR
            case FaultKind.LOSS:
                self._change_lines(node, loss=LOSS)
            case FaultKind.THIN:
                self._change_lines(node, bytes_per_s=THIN_MBIT * BYTES_PER_MBIT)
            case FaultKind.CORRUPT:
                conditions.is_corrupt = True
            case FaultKind.OOM:
                conditions.oom_steps = fault.steps
            case FaultKind.DISK_FULL:
                shutil.rmtree(node.home)
                node.home.write_bytes(b"")
            case FaultKind.CLOCK:
                node.clock_offset_s += fault.offset_s

    def _end(self, fault: Fault, node: LabNode) -> None:
        swarm, conditions = self._swarm, node.conditions
        match fault.kind:
            case FaultKind.STALL:
                swarm.thaw(node)
            case FaultKind.DROP | FaultKind.PARTITION:
                swarm.reconnect(node)
            case FaultKind.SLOW:
                conditions.slow_factor = 1.0
            case FaultKind.LOSS | FaultKind.THIN:
                self._restore_lines(node)
            case FaultKind.CORRUPT:
                conditions.is_corrupt = False
            case FaultKind.OOM:
                conditions.oom_steps = 0
            case FaultKind.DISK_FULL:
                node.home.unlink()
                node.home.mkdir()
            case FaultKind.CLOCK:
                node.clock_offset_s -= fault.offset_s

    def _change_lines(self, node: LabNode, **changes: float) -> None:
        network = self._swarm.network
        for pair in self._pairs(node):
            line = network.line(*pair)
            self._lines.setdefault(pair, line)
            network.set_one_way(*pair, dataclasses.replace(line, **changes))

    def _restore_lines(self, node: LabNode) -> None:
        for pair in self._pairs(node):
            if pair in self._lines:
                self._swarm.network.set_one_way(*pair, self._lines.pop(pair))

    def _pairs(self, node: LabNode) -> list[tuple[PeerId, PeerId]]:
        swarm = self._swarm
        others = [*(each.peer for each in swarm.nodes), *swarm.client_peers]
        ways = [(node.peer, other) for other in others if other != node.peer]
        return ways + [(other, sender) for sender, other in ways]
