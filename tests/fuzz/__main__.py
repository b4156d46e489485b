"""``python -m tests.fuzz NAME... --runs N``: a line per decoder; ``all`` is every one."""

from __future__ import annotations

import argparse
import sys

from tests.fuzz.running import Finding, fuzz
from tests.fuzz.targets import TARGETS


def main() -> int:
    """The program; 1 when something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("names", nargs="+", choices=[*TARGETS, "all"], metavar="NAME")
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    names = list(TARGETS) if "all" in options.names else options.names
    for name in names:
        try:
            found = fuzz(TARGETS[name](), options.runs, options.seed)
        except Finding as finding:
            print(f"{name}: FOUND {finding}")
            return 1
        print(
            f"{name}: runs={found.runs} accepted={found.accepted} refused={found.refused}"
            f" rate={found.rate:.0f}/s slowest_ms={1e3 * found.slowest_s:.1f}"
            f" grown_mb={found.grown_mb:.0f}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
