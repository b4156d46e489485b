"""``p2pnode demo``: real nodes on this machine, a story, and a death in the middle of it."""

from __future__ import annotations

from p2pnode.cli.options import Json
from p2pnode.cli.output import Output


def demo(*, json: Json = False) -> None:
    """See a swarm on this machine lose a node in mid-sentence."""
    from p2pnode.cli.run import run_async
    from p2pnode.cli.story import tell_story  # heavy: torch

    run_async(tell_story(Output(as_json=json)))
