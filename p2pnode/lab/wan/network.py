"""The network of a lab: a namespace for each machine, and the lines between them.

Lines and accesses have a fair state, set once, and a present one, which faults change and `heal`
puts back.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from p2pnode.errors import BadRequest
from p2pnode.lab.presets import Link, Way
from p2pnode.lab.wan import namespaces
from p2pnode.lab.wan.emulator import Attach, Count, Detach, SetLine
from p2pnode.lab.wan.helper import Helper
from p2pnode.lab.wan.namespaces import Namespace, Nat
from p2pnode.lab.wan.packets import Access, Line

BYTES_PER_MBIT = 1e6 / 8
QUEUE_S = 0.2
"""The buffers of home routers."""


class WanNetwork:
    """Namespaces and the emulator between them. ``async with`` leaves nothing behind.

    Raises NoNamespaces where this machine does not allow it.
    """

    def __init__(self, *, seed: int = 0) -> None:
        self._emulator = Helper("p2pnode.lab.wan.emulator", str(seed))
        self._namespaces: dict[str, Namespace] = {}
        self._accesses: dict[str, Access] = {}
        self._lines: dict[tuple[str, str], Line] = {}
        self._numbers = itertools.count()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        namespaces.check_rights()
        namespaces.remove_stale()
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._emulator)
            stack.push_async_callback(self._remove_all)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    @property
    def emulator_pid(self) -> int:
        """The emulator's process id."""
        return self._emulator.pid

    def namespace(self, name: str) -> Namespace:
        """The one of that machine."""
        return self._namespaces[name]

    async def add(self, name: str, access: Access, nat: Nat = "none") -> Namespace:
        """Connect a machine; lines from and to it are perfect until they are set."""
        if name in self._namespaces:
            raise BadRequest(f"the lab has a machine {name!r} already")
        namespace = await namespaces.make(next(self._numbers), nat)
        self._namespaces[name] = namespace
        self._accesses[name] = access
        await self._attach(name, access)
        await namespaces.connect(namespace)
        return namespace

    async def remove(self, name: str) -> None:
        """Take a machine away; its processes must have ended."""
        namespace = self._namespaces.pop(name)
        del self._accesses[name]
        self._lines = {pair: line for pair, line in self._lines.items() if name not in pair}
        await self._emulator.ask(Detach(address=namespace.address))
        await namespaces.remove([namespace])

    async def set_lines(self, lines: Mapping[tuple[str, str], Line]) -> None:
        """The fair state of directions (sender, receiver)."""
        self._lines.update(lines)
        await self._put(lines)

    async def silence(self, ours: Collection[str], theirs: Collection[str] | None = None) -> None:
        """Nothing passes between the two groups (None: all others) until `heal`, either way."""
        others = set(self._namespaces) - set(ours) if theirs is None else theirs
        pairs = list(itertools.product(ours, others))
        await self._change([*pairs, *((b, a) for a, b in pairs)], is_silent=True)

    async def silence_one_way(self, sender: str, receiver: str) -> None:
        """What one sends does not reach the other until `heal`; the other direction works."""
        await self._change([(sender, receiver)], is_silent=True)

    async def lose(self, name: str, share: float) -> None:
        """So many packets from and to a machine vanish until `heal`."""
        await self._change(self._pairs(name), loss=share)

    async def limit(self, name: str, access: Access) -> None:
        """Another access until `heal`."""
        await self._attach(name, access)

    async def heal(self, name: str) -> None:
        """A machine's access and all its lines are fair again."""
        await self._attach(name, self._accesses[name])
        await self._put({pair: self._line(*pair) for pair in self._pairs(name)})

    async def counts(self) -> dict[str, Any]:
        """What has happened to packets, how late they left, and the emulator's CPU time."""
        (counts,) = await self._emulator.ask(Count())
        return counts

    async def _change(self, pairs: Iterable[tuple[str, str]], **changes: Any) -> None:
        await self._put({pair: replace(self._line(*pair), **changes) for pair in pairs})

    def _line(self, sender: str, receiver: str) -> Line:
        return self._lines.get((sender, receiver), Line())

    def _pairs(self, name: str) -> list[tuple[str, str]]:
        others = [other for other in self._namespaces if other != name]
        return [(name, other) for other in others] + [(other, name) for other in others]

    async def _attach(self, name: str, access: Access) -> None:
        namespace = self._namespaces[name]
        await self._emulator.ask(
            Attach(namespace=namespace.outer, address=namespace.address, access=access)
        )

    async def _put(self, lines: Mapping[tuple[str, str], Line]) -> None:
        """Present states, all at the same moment."""
        commands = []
        for (sender, receiver), line in lines.items():
            ends = (self._namespaces[sender].address, self._namespaces[receiver].address)
            commands.append(SetLine(sender=ends[0], receiver=ends[1], line=line))
        await self._emulator.ask(*commands)

    async def _remove_all(self) -> None:
        await namespaces.remove(self._namespaces.values())


def access_of(link: Link) -> Access:
    """A machine's own rates."""
    return Access(
        up_bytes_per_s=link.up_mbit * BYTES_PER_MBIT,
        down_bytes_per_s=link.down_mbit * BYTES_PER_MBIT,
        queue_s=QUEUE_S,
    )


def line_of(way: Way) -> Line:
    """One direction between two machines; its rate, too, where a pair has its own."""
    delay_s = way.delay_ms / 1e3
    return Line(
        delay_s=delay_s,
        jitter_s=way.jitter * delay_s,
        loss=way.loss,
        bytes_per_s=way.mbit * BYTES_PER_MBIT,
    )
