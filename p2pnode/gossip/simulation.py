"""A thousand participants in one process: the real `core.Core`, without links and clocks.

Rounds of one second, messages without latency; what the network would carry is counted in the
bytes of real frames. Signatures are made, and checked by nobody: each would be checked a thousand
times here, on one machine.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence

from p2pnode.gossip.core import PERIOD_S, Core
from p2pnode.gossip.digest import Sign, read_digest
from p2pnode.gossip.gossip import MAX_NEIGHBOURS
from p2pnode.gossip.messages import Sync
from p2pnode.types import Health, PeerId
from p2pnode.wire.codec import encode
from p2pnode.wire.frames import PREFIX
from p2pnode.wire.messages import Ping, Pong

EPOCH_S = 1.8e9

Describe = Callable[[int, float], Health]
"""(number of the participant, now) to its health."""


class Simulation:
    """Participants who know each other's announcements.

    rtt_s: the round trip between two, by number
    """

    def __init__(
        self,
        identities: Sequence[tuple[PeerId, Sign]],
        *,
        describe: Describe,
        rtt_s: Callable[[int, int], float],
        seed: int = 0,
    ) -> None:
        self.now = 0.0
        self.cores: list[Core] = []
        self.received_bytes = [0] * len(identities)
        self.num_messages = 0
        self.gone: set[int] = set()
        """Those who neither act nor answer."""
        self._rng = random.Random(seed)
        self._describe = describe
        self._rtt_s = rtt_s
        read = functools.lru_cache(maxsize=1 << 16)(read_digest)
        for number, (peer, sign) in enumerate(identities):
            self.cores.append(
                Core(
                    peer,
                    sign,
                    random.Random(f"{seed}/{number}"),
                    max_neighbours=MAX_NEIGHBOURS,
                    read=read,
                    is_genuine=lambda _: True,
                )
            )
        self._numbers = {core.peer: number for number, core in enumerate(self.cores)}
        announced = {core.peer: (f"/memory/0/p2p/{core.peer}",) for core in self.cores}
        for core in self.cores:
            core.announce(announced)

    def run(self, seconds: int) -> None:
        """Let time pass."""
        for _ in range(seconds):
            order = [n for n in range(len(self.cores)) if n not in self.gone]
            self._rng.shuffle(order)
            for place, number in enumerate(order):
                self._act(number, self.now + PERIOD_S * place / len(order))
            self.now += PERIOD_S

    def _act(self, number: int, now: float) -> None:
        core = self.cores[number]
        core.tick(now, EPOCH_S + now)
        news = core.tell(self._describe(number, now), now, EPOCH_S + now)
        if news is not None:
            self._push(number, news, now)
        partner, _ = core.next_partner(now)
        if partner is not None:
            self._meet(number, self._numbers[partner], now)

    def _meet(self, number: int, partner: int, now: float) -> None:
        core, other = self.cores[number], self.cores[partner]
        opening = core.opening()
        if partner not in self.gone:
            self._count(partner, Ping(number=1))
            self._count(number, Pong(number=1))
            core.answered(other.peer, self._rtt_s(number, partner), now)
            self._deliver(number, partner, opening, now)
            return
        accusation = core.failed(other.peer, now)
        if accusation is not None:
            self._push(number, accusation, now)

    def _push(self, number: int, news: Sync, now: float) -> None:
        for peer in self.cores[number].members.neighbours:
            self._deliver(number, self._numbers[peer], news, now)

    def _deliver(self, sender: int, receiver: int, message: Sync, now: float) -> None:
        """Carry a message, its answer, the answer to that, ..."""
        answer: Sync | None = message
        while answer is not None and receiver not in self.gone:
            self._count(receiver, answer)
            answer = self.cores[receiver].receive(
                self.cores[sender].peer, answer, now, EPOCH_S + now
            )
            sender, receiver = receiver, sender

    def _count(self, receiver: int, message: object) -> None:
        self.num_messages += 1
        header, _ = encode(message)
        self.received_bytes[receiver] += PREFIX.size + len(header)
