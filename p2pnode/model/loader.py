"""From a folder with a checkpoint to the tensors of one block, and nothing more.

The config is data: code that a repository brings along is never run. Names in the file and in the
model differ for some families (experts are stored one by one, prefixes change); transformers'
own conversion rules translate them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    rename_source_key,
)

from p2pnode.errors import ModelFilesError
from p2pnode.model.fingerprint import INDEX, SINGLE, weight_map, weight_names
from p2pnode.model.weights import WeightsFile


@dataclass(slots=True)
class Loaded:
    """A block's tensors by their names in the model, and what reading them cost."""

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    bytes_read: int = 0
    """Tensor bytes read from the files."""
    header_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Form:
    """How a block keeps its tensors."""

    dtype: torch.dtype
    device: str
    quantise: Callable[[str, torch.Tensor], Mapping[str, torch.Tensor]] | None = None
    """What takes the place of a tensor of that name, on a CPU; called as soon as it is read, so
    that only one tensor at a time is there unquantised."""

    def kept(self, name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
        """A tensor that was read, as the block holds it."""
        if self.quantise is None:
            return {name: tensor}
        return {name: each.to(self.device) for name, each in self.quantise(name, tensor).items()}


def load_tensors(
    folder: Path,
    model: Any,
    wanted: Mapping[str, torch.Tensor],
    form: Form,
    progress: Callable[[int, int], None],
) -> Loaded:
    """Read the wanted tensors of a model, as the block keeps them.

    wanted: tensors on the meta device, by their names in ``model``'s state
    progress: told bytes read and bytes to read
    Raises ModelFilesError naming the file, or the tensors that no file has.
    """
    files = weight_files(folder)
    plan = _Plan(model, files, wanted)
    loaded = Loaded()
    with ExitStack() as stack:
        opened = {path: stack.enter_context(WeightsFile(path)) for path in plan.paths}
        _check_listed(plan, opened)
        total = sum(opened[files[name]].entries[name].num_bytes for name in plan.sources)

        def advance(num_bytes: int) -> None:
            loaded.bytes_read += num_bytes
            progress(loaded.bytes_read, total)

        kept = float32_names(model, form.dtype)
        device = form.device if form.quantise is None else "cpu"

        def read(target: str, source: str) -> torch.Tensor:
            kind = torch.float32 if any(name in target for name in kept) else form.dtype
            return opened[files[source]].read(source, kind, device, advance)

        for target in plan.targets:
            for name, tensor in plan.convert(target, read).items():
                _check_shape(folder, name, tensor, wanted)
                loaded.tensors.update(form.kept(name, tensor))
        loaded.header_bytes = sum(file.header_bytes for file in opened.values())
    missing = sorted(set(wanted) - set(loaded.tensors), key=dot_natural_key)
    if missing:
        raise ModelFilesError(f"{folder} lacks {missing[0]} ({len(missing)} tensors in all)")
    return loaded


def weight_files(folder: Path) -> dict[str, Path]:
    """Every tensor's file, from the index, else from the only file's header."""
    index = folder / INDEX
    if index.exists():
        return {tensor: folder / name for tensor, name in weight_map(index).items()}
    weight_names(folder)
    with WeightsFile(folder / SINGLE) as file:
        return dict.fromkeys(file.entries, folder / SINGLE)


class _Plan:
    """Which tensors of the files make up which of the model."""

    def __init__(self, model: Any, files: Mapping[str, Path], wanted: Mapping[str, Any]) -> None:
        self._model = model
        self.targets: dict[str, list[tuple[str | None, str]]] = {}
        """By the first name that a conversion makes: its sources, as (pattern, name)."""
        rules = get_model_conversion_mapping(model)
        renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
        self._converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
        state = model.state_dict(keep_vars=True)
        tied = model.all_tied_weights_keys
        for name in sorted(files, key=dot_natural_key):
            target, pattern = rename_source_key(
                name, renamings, self._converters, model.base_model_prefix, state
            )
            if target not in state and name in state:
                target, pattern = name, None
            target = tied.get(target, target)
            if not self._makes(target, pattern, wanted):
                continue
            held = self.targets.setdefault(target, [])
            if pattern is not None or not held:  # a tied tensor may be stored twice
                held.append((pattern, name))
        self.sources = [name for held in self.targets.values() for _, name in held]
        self.paths = sorted({files[name] for name in self.sources})

    def _makes(self, target: str, pattern: str | None, wanted: Mapping[str, Any]) -> bool:
        """Whether a conversion makes something that we want."""
        if target in wanted or pattern is None:
            return target in wanted
        rule = self._rule(pattern)
        first = rule.target_patterns[0]
        return any(target.replace(first, other) in wanted for other in rule.target_patterns)

    def _rule(self, pattern: str) -> WeightConverter:
        return next(rule for rule in self._converters if pattern in rule.source_patterns)

    def convert(
        self, target: str, read: Callable[[str, str], torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """The tensors that come of one conversion, or of none."""
        held = self.targets[target]
        pattern = held[0][0]
        if pattern is None:
            return {target: read(target, held[0][1])}
        rule = copy.deepcopy(self._rule(pattern))
        for source_pattern, name in held:
            values: Any = read(target, name)  # a tensor does where a future is awaited
            rule.add_tensor(target, name, source_pattern or "", values)
        made = rule.convert(target, model=self._model, config=self._model.config)
        return {
            name: value[0] if isinstance(value, list) else value for name, value in made.items()
        }


def _check_listed(plan: _Plan, opened: Mapping[Path, WeightsFile]) -> None:
    """Raises ModelFilesError when the index promises a tensor that its file does not have."""
    for path, file in opened.items():
        for name in plan.sources:
            if name not in file.entries and not any(name in f.entries for f in opened.values()):
                raise ModelFilesError(f"{path} lacks {name}; download it again")


def _check_shape(
    folder: Path, name: str, tensor: torch.Tensor, wanted: Mapping[str, torch.Tensor]
) -> None:
    if name in wanted and tensor.shape != wanted[name].shape:
        shapes = f"{list(tensor.shape)}, the config says {list(wanted[name].shape)}"
        raise ModelFilesError(f"{folder}: {name} is {shapes}; config and weights do not match")


def float32_names(model: Any, dtype: torch.dtype) -> set[str]:
    """Parts of names whose tensors a family computes in float32 whatever the dtype."""
    kept: set[str] = set()
    if dtype in (torch.float16, torch.bfloat16):
        kept |= set(model._keep_in_fp32_modules_strict or ())
    if dtype is torch.float16:
        kept |= set(model._keep_in_fp32_modules or ())
    return kept
