"""Peer-to-peer pipelines for large language models.

    async with p2pnode.Client() as client:
        async for event in client.stream("Once upon a time"):
            ...

Importing this package costs nothing: what it offers is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from p2pnode.version import VERSION as __version__

if TYPE_CHECKING:
    from p2pnode.client.blocking import BlockingClient
    from p2pnode.client.client import Client
    from p2pnode.client.events import ChainChosen, Done, Embedding, HopCost, Token, TopLogprob
    from p2pnode.errors import BadRequest, JoinFailed, LocalError, NoChain, P2PNodeError, PeerError
    from p2pnode.types import Chain, Hop, LayerRange, PeerId, Sampling

_HOMES = {
    "p2pnode.client.blocking": ("BlockingClient",),
    "p2pnode.client.client": ("Client",),
    "p2pnode.client.events": (
        "ChainChosen",
        "Done",
        "Embedding",
        "HopCost",
        "Token",
        "TopLogprob",
    ),
    "p2pnode.errors": (
        "BadRequest",
        "JoinFailed",
        "LocalError",
        "NoChain",
        "P2PNodeError",
        "PeerError",
    ),
    "p2pnode.types": ("Chain", "Hop", "LayerRange", "PeerId", "Sampling"),
}

__all__ = [
    "BadRequest",
    "BlockingClient",
    "Chain",
    "ChainChosen",
    "Client",
    "Done",
    "Embedding",
    "Hop",
    "HopCost",
    "JoinFailed",
    "LayerRange",
    "LocalError",
    "NoChain",
    "P2PNodeError",
    "PeerError",
    "PeerId",
    "Sampling",
    "Token",
    "TopLogprob",
    "__version__",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'p2pnode' has no attribute {name!r}")
