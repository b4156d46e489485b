"""``p2pnode completion``: what a shell needs to complete our commands and options.

A command of its own, so that ``p2pnode --help`` shows what p2pnode does and nothing else.
"""

from __future__ import annotations

from typing import Annotated, Literal

import typer
from typer._completion_classes import completion_init
from typer._completion_shared import get_completion_script

VARIABLE = "_P2PNODE_COMPLETE"
"""Set by the script when a shell asks what could come next; read by typer."""


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="Your shell.")],
) -> None:
    """Print what lets your shell complete commands.

    For bash: eval "$(p2pnode completion bash)"
    """
    print(get_completion_script(prog_name="p2pnode", complete_var=VARIABLE, shell=shell))


def prepare() -> None:
    """Let typer know how each shell asks."""
    completion_init()
