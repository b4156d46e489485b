"""Bytes that only open a connection's window.

A fresh connection sends 10 packets or so and then waits for their acknowledgement (RFC 6928), and
so needs a round trip more for 64 KiB. Sent while a chain is set up, padding costs nobody time, and
the first hidden states travel at once. Later nothing is needed: heartbeats of a quarter of a second
keep a connection from being idle (RFC 2861), and QUIC here keeps its window anyway.
"""

from __future__ import annotations

from p2pnode.types import Tensor
from p2pnode.wire.codec import message

PADDING_BYTES = 64 * 1024


@message("padding")
class Padding:
    """Both: thrown away."""

    entry: Tensor
    """int64 zeros."""


def padding() -> Padding:
    """One that opens the window for a step of `PADDING_BYTES`."""
    return Padding(entry=Tensor("int64", (PADDING_BYTES // 8,), bytes(PADDING_BYTES)))
