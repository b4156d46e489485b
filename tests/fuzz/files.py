"""Files for decoders that read files; in memory, where there is such a place."""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    shared = Path("/dev/shm")
    return tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else None)


def file(name: str) -> Path:
    """Of that name; removed when the program ends."""
    return Path(_folder().name) / name


def written(file: Path, data: bytes) -> Path:
    """The file, which holds these bytes now."""
    file.write_bytes(data)
    return file
