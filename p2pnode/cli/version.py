"""``p2pnode version``."""

from __future__ import annotations

import platform

from p2pnode.cli.options import Json
from p2pnode.cli.output import Output
from p2pnode.version import VERSION


def version(*, json: Json = False) -> None:
    """Print the version of p2pnode."""
    output = Output(as_json=json)
    output.result({"version": VERSION, "python": platform.python_version()})
    output.say(f"p2pnode {VERSION} (Python {platform.python_version()})")
