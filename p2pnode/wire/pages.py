"""Names of pages of tokens, by which a hop finds what it has computed before for a client. Pure.

A page is `PAGE_TOKENS` tokens, its name a keyed hash of them and of the name before it (BLAKE2b,
RFC 7693): equal names mean equal tokens from the first one on. The key is the client's secret, so
that a hop further down, which never sees token ids, cannot find them by trying.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence

PAGE_TOKENS = 64
NAME_BYTES = 16
MAX_PAGES = 512
"""More are neither named nor kept: names travel in a message's header."""
KEY_BYTES = 32


def names_of(key: bytes, token_ids: Sequence[int]) -> bytes:
    """The names of all whole pages, one behind the other; none without a key."""
    names = []
    name = b""
    for page in range(min(len(token_ids) // PAGE_TOKENS, MAX_PAGES) if key else 0):
        tokens = array("q", token_ids[page * PAGE_TOKENS : (page + 1) * PAGE_TOKENS])
        name = hashlib.blake2b(name + tokens.tobytes(), digest_size=NAME_BYTES, key=key).digest()
        names.append(name)
    return b"".join(names)


def tokens_named(names: bytes) -> int:
    """How many tokens these names stand for."""
    return len(names) // NAME_BYTES * PAGE_TOKENS


def tokens_shared(ours: bytes, theirs: bytes) -> int:
    """How many tokens two lists of names have in common, from the first on."""
    num_pages = min(len(ours), len(theirs)) // NAME_BYTES
    low, high = 0, num_pages  # a page's name is equal only if all before it are
    while low < high:
        middle = (low + high + 1) // 2
        at = slice((middle - 1) * NAME_BYTES, middle * NAME_BYTES)
        low, high = (middle, high) if ours[at] == theirs[at] else (low, middle - 1)
    return low * PAGE_TOKENS
