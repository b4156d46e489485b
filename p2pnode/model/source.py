"""From what a user calls a model to a folder with its files: built in, local, or on the hub."""

from __future__ import annotations

import importlib.resources
import re
from dataclasses import dataclass
from pathlib import Path

from p2pnode.errors import ModelFilesError, UnknownModel
from p2pnode.log import escape
from p2pnode.model.fingerprint import Progress, fingerprint
from p2pnode.types import LayerRange

BUILTIN_NAME = "stories-27"
BUILTIN_NAMES = (None, "builtin", BUILTIN_NAME)
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9_][\w.-]{0,95})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model whose files are on this machine, or those of them that were asked for."""

    name: str
    """Hub id, the folder's name, or ``stories-27``."""
    folder: Path
    fingerprint: str
    is_builtin: bool


def find_model(
    model: str | None,
    *,
    cache: Path,
    layers: LayerRange | None = None,
    with_ends: bool = False,
    progress: Progress | None = None,
    hub_url: str | None = None,
) -> ModelFiles:
    """Find a model's files, from the hub if need be. Blocks: for minutes when it downloads.

    model: None or ``builtin``, a folder, or a hub id; a folder goes before a hub id
    cache: where downloads and sums are kept
    layers: of a model on the hub only the weights of these (and of the ends they touch) are
        fetched; an empty range needs none. None: all.
    with_ends: fetch embedding, final norm and head in any case
    Raises UnknownModel (no such thing), ModelFilesError (it cannot be used or fetched), DiskFull.
    """
    if model in BUILTIN_NAMES:
        folder = _packaged("builtin")
        return ModelFiles(BUILTIN_NAME, folder, fingerprint(folder, cache=cache), True)
    if not model:
        raise UnknownModel("the model's name is empty; give a folder or a hub id")
    folder = _folder(model)
    if folder.is_dir():
        found = folder.resolve()
        if not (found / "config.json").is_file():
            raise ModelFilesError(f"{escape(str(found))} is no model: it has no config.json")
        sums = fingerprint(found, cache=cache, progress=progress)
        return ModelFiles(found.name, found, sums, False)
    _check_hub_id(model)
    # Only now: the hub's client takes half a second to import.
    from p2pnode.model.hub import fetch

    fetched = fetch(
        model, cache=cache, layers=layers, with_ends=with_ends, progress=progress, hub_url=hub_url
    )
    sums = fingerprint(fetched.folder, cache=cache, weights=fetched.weights, progress=progress)
    return ModelFiles(model, fetched.folder, sums, False)


def find_config(model: str | None, *, cache: Path, hub_url: str | None = None) -> tuple[str, Path]:
    """A model's name and its config file, without its weights; from the hub if need be.

    model: as for `find_model`, or the path of a config file
    Raises UnknownModel, ModelFilesError, DiskFull.
    """
    if model in BUILTIN_NAMES:
        return BUILTIN_NAME, _packaged("builtin") / "config.json"
    if not model:
        raise UnknownModel("the model's name is empty; give a folder, a config.json or a hub id")
    path = _folder(model)
    if path.is_file():
        return path.resolve().parent.name, path
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelFilesError(f"{escape(str(path))} is no model: it has no config.json")
        return path.resolve().name, path / "config.json"
    _check_hub_id(model)
    from p2pnode.model.hub import fetch_config

    return model, fetch_config(model, cache=cache, hub_url=hub_url)


def builtin_draft() -> Path:
    """The folder of the built-in model's draft; raises ModelFilesError when it is not there."""
    return _packaged("builtin/draft")


def _packaged(path: str) -> Path:
    folder = Path(str(importlib.resources.files("p2pnode"))) / "model" / path
    if not (folder / "config.json").is_file():
        raise ModelFilesError(f"the built-in model is missing in {folder}; install p2pnode again")
    return folder


def _folder(model: str) -> Path:
    try:
        return Path(model).expanduser()
    except RuntimeError:  # ~nobody
        return Path(model)


def _check_hub_id(model: str) -> None:
    """Raises UnknownModel for what is meant as a path, or can be neither."""
    shown = escape(model)
    if model.startswith((".", "/", "~", "\\")) or model.count("/") > 1 or model.endswith("/"):
        raise UnknownModel(f"there is no folder {shown}")
    if not HUB_ID.fullmatch(model):
        raise UnknownModel(f"{shown} is neither a folder nor a hub id like Qwen/Qwen3-0.6B")
