"""Fetches models from the Hugging Face hub: safetensors, JSON and templates, never code or pickles.

Of the weights only the files that hold the layers asked for. What the hub says about the others
(size, SHA-256) is kept, so that the fingerprint is the whole model's, also without the hub.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import errors
from tqdm import tqdm  # type: ignore[import-untyped]

from p2pnode.errors import DiskFull, ModelFilesError, UnknownModel
from p2pnode.log import escape
from p2pnode.model.fingerprint import (
    INDEX,
    SHA256,
    SINGLE,
    Progress,
    WeightFile,
    weight_map,
    weight_names,
)
from p2pnode.types import LayerRange

SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    INDEX,
)

LAYER_NUMBER = re.compile(r"\.(\d{1,5})\.")
"""In a tensor's name the first number is its layer's."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A snapshot of a hub model, perhaps without weights that nobody asked for."""

    folder: Path
    weights: Mapping[str, WeightFile]
    """Of all weight files, also of those not fetched."""


def fetch(
    model: str,
    *,
    cache: Path,
    layers: LayerRange | None,
    with_ends: bool,
    progress: Progress | None,
    hub_url: str | None,
) -> Fetched:
    """Bring the files here that are not here yet; see `source.find_model`."""
    hub = _Hub(model, cache / "hub", progress, hub_url)
    with _translated(model):
        folder = hub.snapshot([*SMALL_FILES], revision=None)
        if not (folder / INDEX).exists():
            return _fetch_single(hub, folder, layers, with_ends)
        names = weight_names(folder)
        weights = hub.weights(folder, names)
        wanted = wanted_files(weight_map(folder / INDEX), layers, with_ends=with_ends)
        wanted += [name for name in names if name not in weights]  # small: read for their sum
        if wanted:
            hub.snapshot(wanted, revision=folder.name)
        return Fetched(folder, weights)


def fetch_config(model: str, *, cache: Path, hub_url: str | None) -> Path:
    """A model's config.json alone; see `source.find_config`."""
    with _translated(model):
        file = _Hub(model, cache / "hub", None, hub_url).snapshot(["config.json"], revision=None)
    if not (file / "config.json").exists():
        raise ModelFilesError(f"{model} on the hub is no model: it has no config.json")
    return file / "config.json"


def _fetch_single(hub: _Hub, folder: Path, layers: LayerRange | None, with_ends: bool) -> Fetched:
    if not (folder / "config.json").exists():
        raise ModelFilesError(f"{hub.model} on the hub is no model: it has no config.json")
    weights = hub.weights(folder, (SINGLE,))
    if layers is None or layers or with_ends or not weights:
        hub.snapshot([SINGLE], revision=folder.name)
    return Fetched(folder, weights)


def wanted_files(
    weights: Mapping[str, str], layers: LayerRange | None, *, with_ends: bool
) -> list[str]:
    """The weight files that hold the layers, and the tensors outside of layers where needed.

    Those (embedding, final norm, head) belong to ranges that begin or end the model.
    """
    if layers is None:
        return sorted(set(weights.values()))
    numbers = {name: _layer_of(name) for name in weights}
    num_layers = max((n + 1 for n in numbers.values() if n is not None), default=0)
    touches_end = bool(layers) and (layers.start == 0 or layers.stop >= num_layers)
    wanted = set()
    for name, file in weights.items():
        number = numbers[name]
        is_ours = with_ends or touches_end if number is None else number in range(*_ends(layers))
        if is_ours:
            wanted.add(file)
    return sorted(wanted)


def _ends(layers: LayerRange) -> tuple[int, int]:
    return layers.start, layers.stop


def _layer_of(name: str) -> int | None:
    found = LAYER_NUMBER.search(name)
    return int(found[1]) if found else None


class _Hub:
    """One model's place on the hub and in our cache."""

    def __init__(
        self, model: str, cache: Path, progress: Progress | None, hub_url: str | None
    ) -> None:
        self.model = model
        self._cache = cache
        self._progress = progress
        self._hub_url = hub_url

    def snapshot(self, names: list[str], revision: str | None) -> Path:
        """Fetch these files of a revision (the newest one: None); returns the folder."""
        folder = huggingface_hub.snapshot_download(
            self.model,
            revision=revision,
            cache_dir=self._cache,
            allow_patterns=names,
            endpoint=self._hub_url,
            tqdm_class=_bar_class(f"fetching {self.model}", self._progress),
        )
        return Path(folder)

    def weights(self, folder: Path, names: tuple[str, ...]) -> dict[str, WeightFile]:
        """Size and sum of each weight file, from our notes or from the hub."""
        file = self._cache / f"{self.model.replace('/', '--')}@{folder.name}.json"
        noted = _noted(file)
        if not all(name in noted for name in names):
            noted = self._ask(folder.name, names)
            file.write_text(
                json.dumps({name: [f.num_bytes, f.sha256] for name, f in noted.items()})
            )
        return {name: noted[name] for name in names if name in noted}

    def _ask(self, revision: str, names: tuple[str, ...]) -> dict[str, WeightFile]:
        api = huggingface_hub.HfApi(endpoint=self._hub_url)
        infos = api.get_paths_info(self.model, [*names], revision=revision)
        there = {info.path: info for info in infos}
        for name in names:
            if name not in there:
                raise ModelFilesError(
                    f"{self.model} on the hub has no {name}; p2pnode reads only safetensors"
                )
        # Files outside of large-file storage have no SHA-256 there: they are read.
        large = {name: info.lfs for name, info in there.items() if info.lfs is not None}
        return {name: WeightFile(int(lfs.size), str(lfs.sha256)) for name, lfs in large.items()}


def _noted(file: Path) -> dict[str, WeightFile]:
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
        found = {name: WeightFile(size, sha256) for name, (size, sha256) in entries.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
    is_good = all(type(f.num_bytes) is int and SHA256.fullmatch(f.sha256) for f in found.values())
    return found if is_good else {}


@contextlib.contextmanager
def _translated(model: str) -> Iterator[None]:
    """The library's errors as ours, on one line each."""
    try:
        yield
    except errors.GatedRepoError:
        what = f"{model} is gated: accept its terms on its page on the hub, then set HF_TOKEN"
        raise ModelFilesError(what) from None
    except errors.RepositoryNotFoundError:
        what = f"there is no folder {model} here and no such model on the hub"
        raise UnknownModel(f"{what} (a private one needs HF_TOKEN)") from None
    except errors.LocalEntryNotFoundError:
        what = f"{model} is not in the cache and the hub cannot be reached"
        raise ModelFilesError(f"{what}; try again, or give a local folder") from None
    except (errors.HTTPError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"no room left on the disk for {model}; free some") from None
        what = escape(str(error).partition("\n")[0])
        raise ModelFilesError(f"fetching {model} failed: {what}") from None


def _bar_class(what: str, progress: Progress | None) -> type[Any]:
    """A progress bar that draws nothing and tells `progress`, as far as it counts bytes."""

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "file": io.StringIO(), "disable": False})

        def display(self, *args: Any, **kwargs: Any) -> None:
            if progress is not None and self.unit == "B" and self.total:
                progress(what, int(self.n), int(self.total))

    return Bar
