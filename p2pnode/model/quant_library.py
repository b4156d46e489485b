"""bitsandbytes, an optional library that quantises weights: whether it is there, and its import."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from p2pnode.errors import LocalError

LIBRARY = "bitsandbytes"


def ensure_installed(kind: str, library: str = LIBRARY) -> None:
    """Raises LocalError, which says what to install, when quantisation needs what is not there."""
    if kind and find_spec(library) is None:
        what = f"--quant {kind} needs {library}, which is not installed"
        raise LocalError(f"{what}: pip install 'p2pnode[quant]'")


def library() -> Any:
    """`bitsandbytes.functional`; the first call takes seconds. Raises LocalError without it."""
    loaded = sys.modules.get(f"{LIBRARY}.functional")
    if loaded is not None:
        return loaded
    ensure_installed("int8|nf4")
    with _nothing_fetched():
        try:
            from bitsandbytes import functional
        except (ImportError, OSError, RuntimeError) as error:
            reason = str(error).partition("\n")[0][:200]
            raise LocalError(f"{LIBRARY} is installed and cannot be used: {reason}") from error
    return functional


@contextmanager
def _nothing_fetched() -> Iterator[None]:
    """Keep the library from fetching compiled code from a hub when it is imported.

    It does so where the package `kernels` is installed; None in the place of a module is an
    ImportError, which the library copes with, and warns of.
    """
    held = sys.modules.get("kernels")
    logger = logging.getLogger(LIBRARY)
    level = logger.level
    sys.modules["kernels"] = None  # type: ignore[assignment]
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        del sys.modules["kernels"]
        if held is not None:
            sys.modules["kernels"] = held
