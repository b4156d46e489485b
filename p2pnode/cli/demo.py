"""``p2pnode demo``: real nodes on this machine, a story, and a death in the middle of it."""

from __future__ import annotations

from p2pnode.cli.options import Json
from p2pnode.cli.output import Output
from p2pnode.cli.run import run_async


def demo(*, json: Json = False) -> None:
    """Start nodes on this machine, stream a story through them, and kill one in mid-sentence."""
    from p2pnode.demo.demo import run_demo  # heavy: torch

    output = Output(as_json=json)
    result = run_async(run_demo(output))
    output.event("result", **result)
