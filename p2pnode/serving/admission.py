"""Who may have a place on this node, counted in bytes before anything is allocated."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from p2pnode.errors import PeerMisbehaved, PeerRefused
from p2pnode.numerics import Numerics
from p2pnode.serving.session import HopSession
from p2pnode.types import LayerRange, ModelSpec, PeerId
from p2pnode.wire.messages import Open, Step

MAX_SHARE = 0.25
MAX_SESSIONS_OF_PEER = 4
"""So much of the room, and so many places, may a client have while others have any."""
RETRY_AFTER_S = 2.0
BUSY_RETRY_AFTER_S = 30.0


class Admission:
    """Decides on `Open` and checks what a `Step` carries; holds no state of its own."""

    def __init__(
        self,
        *,
        peer: PeerId,
        spec: ModelSpec,
        layers: LayerRange,
        numerics: str,
        capacity_tokens: int,
        max_sessions: int,
        is_busy: Callable[[], bool] = lambda: False,
        bytes_per_token: Callable[[LayerRange], int] = len,
    ) -> None:
        """capacity_tokens: room for so many tokens in all of our layers
        is_busy: whether the owner needs the machine now
        bytes_per_token: what a token of a session costs in these layers; by default one per layer
        """
        self._peer = peer
        self._spec = spec
        self._layers = layers
        self._numerics = numerics
        self._dtype = Numerics.parse(numerics).dtype
        self._bytes_per_token = bytes_per_token
        self._capacity_bytes = capacity_tokens * bytes_per_token(layers)
        self._max_sessions = max_sessions
        self._is_busy = is_busy

    def bytes_of(self, session: HopSession) -> int:
        """What a session may come to hold, whatever it holds now."""
        return session.max_tokens * self._bytes_per_token(session.layers)

    def check(self, message: Open, client: PeerId, sessions: Iterable[HopSession]) -> int:
        """The bytes that are free beside the new session of that client.

        Raises PeerRefused (as the client will see it) unless the session fits.
        """
        spec = self._spec
        if message.fingerprint != spec.fingerprint:
            self._refuse(f"serves another revision of {spec.name} (fingerprints differ)")
        if message.numerics != self._numerics:
            self._refuse(f"computes in {self._numerics}, not in {message.numerics[:40]}")
        if not self._layers.covers(message.layers):
            self._refuse(f"serves layers {self._layers}, not {message.layers}")
        has_ending = message.sampling is not None or message.pools
        if has_ending and message.layers.stop != spec.num_layers:
            self._refuse(f"has no head for layers {message.layers}, so it cannot sample")
        if message.max_tokens > spec.max_positions:
            self._refuse(f"{spec.name} holds {spec.max_positions} tokens")
        if self._is_busy():
            raise PeerRefused(self._peer, "its owner is using it", BUSY_RETRY_AFTER_S)
        held: list[int] = []
        own: list[int] = []
        for session in sessions:
            held.append(self.bytes_of(session))
            if session.client.peer == client:
                own.append(held[-1])
        if len(held) >= self._max_sessions:
            self._refuse(f"{len(held)} sessions are open, at most {self._max_sessions}", True)
        cost = self._bytes_per_token(message.layers)
        free_bytes = self._capacity_bytes - sum(held)
        if message.max_tokens * cost > free_bytes:
            room = f"room for {free_bytes // cost} tokens, not for {message.max_tokens}"
            self._refuse(room, True)
        if len(own) < len(held):
            self._check_share(own, message.max_tokens * cost)
        return free_bytes - message.max_tokens * cost

    def _check_share(self, own: list[int], more_bytes: int) -> None:
        """One client leaves room for others who are there; raises PeerRefused."""
        if len(own) >= MAX_SESSIONS_OF_PEER:
            self._refuse(f"{len(own)} sessions are yours, at most {MAX_SESSIONS_OF_PEER}", True)
        share = (sum(own) + more_bytes) / self._capacity_bytes
        if share > MAX_SHARE:
            what = f"{share:.0%} of the room would be yours, at most {MAX_SHARE:.0%}"
            self._refuse(f"{what} while others are here", True)

    def _refuse(self, what: str, is_passing: bool = False) -> None:
        raise PeerRefused(self._peer, what, RETRY_AFTER_S if is_passing else 0.0)

    def check_entry(self, sender: PeerId, step: Step, session: HopSession) -> None:
        """Raises PeerMisbehaved unless the entry is what this hop computes on."""
        entry, size = step.entry, self._spec.hidden_size
        if len(entry.shape) == 1:
            if entry.dtype != "int64" or session.layers.start != 0 or self._layers.start != 0:
                raise PeerMisbehaved(sender, f"sent token ids to layers {session.layers}")
            ids = memoryview(entry.data).cast("B").cast("q")
            if not all(0 <= token_id < self._spec.vocab_size for token_id in ids):
                raise PeerMisbehaved(sender, f"token ids outside 0-{self._spec.vocab_size - 1}")
        elif entry.shape[1] != size or entry.dtype != self._dtype:
            what = f"sent {entry.dtype} {entry.shape}, not {self._dtype} [tokens, {size}]"
            raise PeerMisbehaved(sender, what)
