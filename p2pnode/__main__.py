"""``python -m p2pnode`` is the command ``p2pnode``."""

from __future__ import annotations

from p2pnode.cli.main import main

main()
