"""How values are said in one sentence."""

from __future__ import annotations

from p2pnode.types import PeerId, SwarmView


def ms(seconds: float) -> str:
    """``0.4 ms``, ``82 ms``, ``1.6 s``."""
    if seconds >= 1.0:
        return f"{seconds:.1f} s"
    return f"{seconds * 1e3:.{0 if seconds >= 0.01 else 1}f} ms"


def name(peer: PeerId) -> str:
    """``peer AbCdEfGh``, as in errors."""
    return f"peer {peer.short}"


def layers_of(view: SwarmView, peer: PeerId) -> str:
    """``layers 0-8``, or the like where it announces nothing now."""
    found = next((a.layers for a in view.announcements if a.peer == peer), None)
    return "its layers" if found is None else f"layers {found}"
