"""Which model a swarm serves."""

from __future__ import annotations

from p2pnode.errors import SeveralModels
from p2pnode.types import SwarmView


def only_model(view: SwarmView) -> str | None:
    """The name of the swarm's model, None when it serves none.

    Raises SeveralModels, which lists them.
    """
    served = {a.fingerprint: a.model for a in view.announcements}
    if len(served) > 1:
        names = ", ".join(sorted(f"{name} ({key[:8]})" for key, name in served.items()))
        raise SeveralModels(f"the swarm serves several models: {names}; choose one with --model")
    return next(iter(served.values()), None)
