"""Decides whether two peers serve the same model, whatever they call it.

A fingerprint is the SHA-256 over the canonical config, the tokenizer, and the name, size and
SHA-256 of each weight file in order. A weight file's own sum comes from the hub where it can
(so that nobody needs files of layers that he does not serve), else it is computed once and
remembered by path, size and time of change.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2pnode.errors import ModelFilesError
from p2pnode.log import escape
from p2pnode.model.json_file import read_json

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Told what is going on, and how many bytes of how many are done; may be called by any thread."""

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
CACHE_FILE = "weight_sums.json"
CHUNK_BYTES = 1 << 20

WEIGHT_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,200}\.safetensors")
SHA256 = re.compile(r"[0-9a-f]{64}")

NOISE = frozenset(
    {
        "transformers_version",
        "transformers.js_config",
        "_name_or_path",
        "_commit_hash",
        "_from_model_config",
        "_attn_implementation_autoset",
        "dtype",
        "torch_dtype",
        "use_cache",
        "output_attentions",
        "output_hidden_states",
        "return_dict",
    }
)
"""What configs hold besides the model: who wrote them, and how they are run by default."""


@dataclass(frozen=True, slots=True)
class WeightFile:
    """What identifies a weight file."""

    num_bytes: int
    sha256: str


def fingerprint(
    folder: Path,
    *,
    cache: Path,
    weights: Mapping[str, WeightFile] | None = None,
    progress: Progress | None = None,
) -> str:
    """The fingerprint of a model folder, 64 hex digits.

    weights: what is known of the weight files (from the hub), by name; the others are read
    cache: the folder where sums are remembered; that it cannot be written is no error
    Raises ModelFilesError when a file is missing or not of the form that it should be.
    """
    known = dict(weights or {})
    is_single = SINGLE in known and not (folder / INDEX).exists()
    names = (SINGLE,) if is_single else weight_names(folder)
    missing = [name for name in names if name not in known]
    known |= _local_sums(folder, missing, cache, progress)
    content = {
        "version": 1,
        "config": canonical(read_json(folder / "config.json")),
        "tokenizer": _tokenizer_sum(folder / "tokenizer.json"),
        "weights": [[name, known[name].num_bytes, known[name].sha256] for name in names],
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def canonical(config: Any) -> Any:
    """A config without `NOISE`, at any depth."""
    if isinstance(config, dict):
        return {key: canonical(value) for key, value in config.items() if key not in NOISE}
    if isinstance(config, list):
        return [canonical(value) for value in config]
    return config


def weight_names(folder: Path) -> tuple[str, ...]:
    """The names of the weight files that make up the model, sorted, there or not.

    Raises ModelFilesError when there are none that we read.
    """
    index = folder / INDEX
    if index.exists():
        return tuple(sorted(set(weight_map(index).values())))
    if (folder / SINGLE).exists():
        return (SINGLE,)
    pickles = any(folder.glob("*.bin")) or any(folder.glob("*.pth"))
    what = "only pickled weights, which can run code" if pickles else "no weights"
    raise ModelFilesError(
        f"{escape(str(folder))} has {what}; p2pnode reads {SINGLE} or {INDEX}: "
        "save_pretrained() of transformers writes them"
    )


def weight_map(index: Path) -> dict[str, str]:
    """The weight file of each tensor; raises ModelFilesError, also for a name with a path."""
    found = read_json(index).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise ModelFilesError(f"{index} has no weight_map; fetch the model again")
    for name in found.values():
        if not isinstance(name, str) or not WEIGHT_NAME.fullmatch(name):
            raise ModelFilesError(
                f"{index} names {escape(repr(name), 80)}, which is no weight file"
            )
    return found


def _tokenizer_sum(file: Path) -> str | None:
    """None for a model without a tokenizer of this form."""
    return _sum(file, lambda done: None) if file.exists() else None


def _local_sums(
    folder: Path, names: list[str], cache: Path, progress: Progress | None
) -> dict[str, WeightFile]:
    if not names:
        return {}
    file = cache / CACHE_FILE
    remembered = _remembered(file)
    found, is_new = {}, False
    for name in names:
        path = _existing(folder / name)
        status = path.stat()
        key = [status.st_size, status.st_mtime_ns]
        entry = remembered.get(str(path))
        if entry is None or entry[:2] != key:
            entry = [*key, _hub_sum(path) or _shown_sum(path, status.st_size, progress)]
            remembered[str(path)] = entry
            is_new = True
        found[name] = WeightFile(status.st_size, str(entry[2]))
    if is_new:
        _remember(file, remembered)
    return found


def _existing(path: Path) -> Path:
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError):
        what = f"{path.name} is missing in {escape(str(path.parent))}"
        raise ModelFilesError(f"{what}, though its index names it; fetch the model again") from None


def _hub_sum(path: Path) -> str | None:
    """In the hub's cache large files lie in ``blobs/``, named by their SHA-256."""
    is_named_so = path.parent.name == "blobs" and SHA256.fullmatch(path.name)
    return path.name if is_named_so else None


def _shown_sum(path: Path, num_bytes: int, progress: Progress | None) -> str:
    if progress is None:
        return _sum(path, lambda done: None)
    return _sum(path, lambda done: progress(f"checking {path.name}", done, num_bytes))


def _sum(path: Path, on_bytes: Callable[[int], None]) -> str:
    digest, done = hashlib.sha256(), 0
    try:
        with path.open("rb") as opened:
            while chunk := opened.read(CHUNK_BYTES):
                digest.update(chunk)
                done += len(chunk)
                on_bytes(done)
    except OSError as error:
        raise ModelFilesError(f"cannot read {path}: {error.strerror}") from None
    return digest.hexdigest()


def _remembered(file: Path) -> dict[str, list[int | str]]:
    """Path to [size, time of change, sum]; what is corrupted is forgotten."""
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(entries, dict):
        return {}
    return {path: entry for path, entry in entries.items() if _is_entry(entry)}


def _is_entry(entry: object) -> bool:
    return (
        isinstance(entry, list)
        and [type(part) for part in entry] == [int, int, str]
        and SHA256.fullmatch(entry[2]) is not None
    )


def _remember(file: Path, entries: Mapping[str, list[int | str]]) -> None:
    """Replace the file in one step; of two writers the last one wins, which costs only time."""
    kept = {path: entry for path, entry in entries.items() if Path(path).exists()}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=file.parent, prefix=CACHE_FILE, suffix=".new", delete=False
        ) as new:
            json.dump(kept, new)
        os.replace(new.name, file)
    except OSError as error:
        log.warning("sums not remembered: file=%s error=%s", file, error.strerror)
