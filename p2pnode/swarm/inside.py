"""Being inside a private swarm: what one peer has for it besides transport and directory."""

from __future__ import annotations

from dataclasses import dataclass

from p2pnode.net.gate import Gate, key_of
from p2pnode.net.ground import Ground
from p2pnode.net.transport import Transport
from p2pnode.swarm.news_file import NewsFile
from p2pnode.swarm.tidings import Teller
from p2pnode.trust.grants import Warrant
from p2pnode.trust.guard import Guard
from p2pnode.types import PeerId


@dataclass(frozen=True, slots=True)
class Inside:
    """The parts, at work."""

    name: str
    """What the members call their swarm."""
    gate: Gate
    guard: Guard
    teller: Teller

    def member(self, peer: PeerId) -> Warrant | None:
        """The warrant of a peer that has been let in, and would be now."""
        return self.guard.member(key_of(peer))


@dataclass(slots=True)
class Entrance:
    """Puts the parts together: first the gate on a ground, then what talks through it."""

    name: str
    guard: Guard
    file: NewsFile | None = None
    """None: what is heard is kept in memory only."""
    _gate: Gate | None = None

    def gate(self, ground: Ground) -> Gate:
        """The gate, for whatever stands on that ground."""
        self._gate = Gate(ground, self.guard)
        return self._gate

    def inside(self, transport: Transport) -> Inside:
        """The whole, on a transport that stands on the gate; ``teller.run()`` is the caller's."""
        if self._gate is None:
            raise ValueError("there is no gate yet")
        teller = Teller(transport, self._gate, self.guard, file=self.file)
        return Inside(self.name, self._gate, self.guard, teller)
