"""Safetensors files: a header is believed only after every number in it was checked.

Nothing is mapped into memory: bytes go by `os.preadv` into the tensor that the block will use, so
what a node reads and holds is what it serves. Files that fail raise ModelFilesError, which names
the file and says what to do.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from p2pnode.errors import ModelFilesError

MAX_HEADER_BYTES = 4 << 20
MAX_TENSORS = 20_000
MAX_DIMENSIONS = 8
STAGE_BYTES = 8 << 20
"""Bytes read at once where the dtype is converted on the way."""

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:\-]{0,255}")

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Those that we compute from; others (fp8, mx) belong to quantised checkpoints."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one tensor lies: ``start`` and ``stop`` are offsets in the file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def num_bytes(self) -> int:
        """Its size in the file."""
        return self.stop - self.start


class WeightsFile:
    """One open safetensors file; ``with`` closes it. ``bytes_read`` counts tensor bytes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, Entry] = {}
        self.bytes_read = 0
        self.header_bytes = 0
        self._fd = -1
        self._stage = torch.empty(0, dtype=torch.uint8)

    def __enter__(self) -> Self:
        try:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise ModelFilesError(f"{self.path}: {error.strerror}; download it again") from error
        try:
            self.entries = self._header()
        except BaseException:
            os.close(self._fd)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._fd)
        self._stage = torch.empty(0, dtype=torch.uint8)

    def read(
        self,
        name: str,
        dtype: torch.dtype,
        device: str,
        progress: Callable[[int], None] = lambda num_bytes: None,
    ) -> torch.Tensor:
        """One tensor, converted to ``dtype`` piece by piece; raises ModelFilesError.

        progress: told the bytes of each piece, as the file has them
        """
        entry = self.entries[name]
        if entry.dtype.is_floating_point != dtype.is_floating_point:
            dtype = entry.dtype  # masks and indices keep theirs
        flat = torch.empty(prod(entry.shape), dtype=dtype, device=device)
        step = STAGE_BYTES // entry.dtype.itemsize
        is_direct = dtype == entry.dtype and flat.device.type == "cpu"
        if not is_direct and not len(self._stage):
            self._stage = torch.empty(STAGE_BYTES, dtype=torch.uint8)
        for first in range(0, flat.numel(), step):
            part = flat[first : first + step]
            target = part if is_direct else self._stage.view(entry.dtype)[: part.numel()]
            self._fill(target, entry.start + first * entry.dtype.itemsize)
            if not is_direct:
                part.copy_(target)
            progress(target.nbytes)
        return flat.view(entry.shape)

    def _fill(self, target: torch.Tensor, offset: int) -> None:
        """Read exactly as many bytes as the tensor has, from an offset of the file."""
        view = memoryview(target.view(torch.uint8).numpy().data)
        done = 0
        while done < len(view):
            try:
                got = os.preadv(self._fd, [view[done:]], offset + done)
            except OSError as error:
                raise self._bad(f"cannot be read ({error.strerror})") from error
            if not got:
                raise self._bad("ends too early")
            done += got
        self.bytes_read += done

    def _header(self) -> dict[str, Entry]:
        size = os.fstat(self._fd).st_size
        prefix = os.pread(self._fd, 8, 0)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise self._bad(f"has no safetensors header (length {length}, file {size} bytes)")
        text = os.pread(self._fd, length, 8)
        self.header_bytes = 8 + length
        try:
            header = json.loads(text, object_pairs_hook=self._unique)
        except (ValueError, RecursionError) as error:
            raise self._bad("has a header that is not JSON") from error
        if not isinstance(header, dict):
            raise self._bad("has a header that is not a table")
        header.pop("__metadata__", None)
        if len(header) > MAX_TENSORS:
            raise self._bad(f"lists {len(header)} tensors, at most {MAX_TENSORS} are allowed")
        entries = {name: self._entry(name, field, size) for name, field in header.items()}
        end = 0
        for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
            if entry.start < end:
                raise self._bad(f"has overlapping tensors at {name[:80]!r}")
            end = entry.stop
        return entries

    def _unique(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) != len(pairs):
            raise self._bad("names a tensor twice")
        return table

    def _entry(self, name: str, field: Any, size: int) -> Entry:
        """One line of the header; offsets in it count from the header's end."""
        if not NAME.fullmatch(name) or ".." in name:
            raise self._bad(f"has a tensor with the name {name[:80]!r}")
        if not isinstance(field, dict) or set(field) != {"dtype", "shape", "data_offsets"}:
            raise self._bad(f"does not describe {name}")
        dtype = DTYPES.get(field["dtype"]) if isinstance(field["dtype"], str) else None
        if dtype is None:
            raise self._bad(f"has {name} as {str(field['dtype'])[:20]}, which we do not read")
        shape, offsets = field["shape"], field["data_offsets"]
        if not _are_sizes(shape) or len(shape) > MAX_DIMENSIONS:
            raise self._bad(f"has no shape for {name}")
        if not _are_sizes(offsets) or len(offsets) != 2:
            raise self._bad(f"has no offsets for {name}")
        start, stop = (self.header_bytes + offset for offset in offsets)
        if not start <= stop <= size or stop - start != prod(shape) * dtype.itemsize:
            raise self._bad(f"is cut or corrupted: {name} does not fit in its {size} bytes")
        return Entry(dtype, tuple(shape), start, stop)

    def _bad(self, what: str) -> ModelFilesError:
        return ModelFilesError(f"{self.path} {what}; download it again")


def _are_sizes(values: Any) -> bool:
    """Whether it is a list of whole numbers from 0 on (True is none)."""
    return isinstance(values, list) and all(type(v) is int and 0 <= v < 1 << 62 for v in values)
