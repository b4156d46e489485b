"""Which peers hold what this client's earlier sessions have computed, as far as it knows."""

from __future__ import annotations

import os
from collections import deque

from p2pnode.routing.needs import Held
from p2pnode.types import Chain, PeerId
from p2pnode.wire.pages import KEY_BYTES, names_of, tokens_shared

MAX_SESSIONS = 64


class Holders:
    """Of the last sessions. Peers may have forgotten it; then they say so, and compute it anew."""

    def __init__(self, *, is_on: bool) -> None:
        self.page_key = os.urandom(KEY_BYTES) if is_on else b""
        """Names the pages of all sessions (`wire.pages`); empty: nothing is kept."""
        self._sessions: deque[tuple[bytes, frozenset[PeerId]]] = deque(maxlen=MAX_SESSIONS)

    def note(self, pages: bytes, chain: Chain | None) -> None:
        """A session has ended, and its hops were asked to keep these pages."""
        if pages and chain is not None:
            self._sessions.append((pages, frozenset(hop.peer for hop in chain.hops)))

    def find(self, prompt: list[int], max_new_tokens: int) -> Held:
        """Who holds the longest beginning of a prompt."""
        pages = names_of(self.page_key, prompt)
        held = Held()
        for theirs, peers in self._sessions:
            num_tokens = tokens_shared(pages, theirs)
            if num_tokens and num_tokens >= held.num_tokens:  # the last of equal ones
                held = Held(peers, num_tokens, num_tokens / max_new_tokens)
        return held
