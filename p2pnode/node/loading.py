"""From a model's name to a loaded block and its figures; runs on a thread, may take minutes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from p2pnode.config import NodeConfig
from p2pnode.errors import BadLayerRange, DoesNotFit, ModelUnsupported
from p2pnode.model.block import Block
from p2pnode.model.check import ensure_supported
from p2pnode.model.device import Device, choose_device, default_dtype
from p2pnode.model.memory import block_bytes
from p2pnode.model.quant_library import ensure_installed
from p2pnode.model.source import find_model
from p2pnode.model.spec import read_spec
from p2pnode.node.figures import Figures, measure
from p2pnode.node.limits import within
from p2pnode.node.wire_gate import ensure_passed
from p2pnode.numerics import QUANTS, Numerics
from p2pnode.types import LayerRange, ModelSpec

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Told what is going on, and how many bytes of how many are done."""


def load_block(
    config: NodeConfig, name: str | None, layers: LayerRange, progress: Progress
) -> tuple[Block, Figures]:
    """Find, check, count, load, measure.

    Raises UnknownModel, ModelFilesError, ModelUnsupported, BadLayerRange, DoesNotFit, BadRequest,
    LocalError when the library that quantises weights is asked for and missing.
    """
    ensure_installed(config.quant)
    files = find_model(name, cache=config.cache, layers=LayerRange(0, 0))
    spec = read_spec(files.folder, files.name, files.fingerprint)
    check_layers(layers, spec)
    ensure_passed(files, config.wire, cache=config.cache)
    files = find_model(name, cache=config.cache, layers=layers, progress=progress)
    whole = LayerRange(0, spec.num_layers)
    device = within(choose_device(config.device), config.vram_bytes)
    dtype, reason = config.dtype, "as asked"
    if dtype == "auto":
        dtype, reason = default_dtype(device, block_bytes(files.folder, spec, whole, "float32"))
    _ensure_fits(Asked(files.folder, spec, layers, dtype, config.quant), device, config.vram_bytes)
    if not files.is_builtin:  # that one is proven by the tests
        ensure_supported(files.folder, spec, cache=config.cache)
    block = Block.load(
        files.folder,
        spec,
        layers,
        device=device.torch_name,
        dtype=dtype,
        quant=config.quant,
        progress=partial(progress, "loading"),
    )
    numerics = Numerics(dtype, quant=config.quant)
    log.info("loaded: model=%s layers=%s dtype=%s (%s)", spec.name, layers, numerics, reason)
    free_now = choose_device(config.device)
    free_now = within(free_now, config.vram_bytes, used_bytes=block.num_bytes)
    return block, measure(block, free_now, max_session_tokens=config.min_session_tokens)


@dataclass(frozen=True, slots=True)
class Asked:
    """The block that is to be loaded."""

    folder: Path
    spec: ModelSpec
    layers: LayerRange
    dtype: str
    quant: str

    def num_bytes(self, quant: str) -> int:
        """Of its tensors, with weights quantised so; raises ModelFilesError, ModelUnsupported."""
        return block_bytes(self.folder, self.spec, self.layers, self.dtype, quant=quant)


def _ensure_fits(asked: Asked, device: Device, allowed_bytes: int | None) -> None:
    """Raises DoesNotFit, which names the quantisation in which the block would fit, if one does."""
    needed, free_bytes = asked.num_bytes(asked.quant), device.free_bytes
    if needed <= free_bytes:
        return
    numerics = Numerics(asked.dtype, quant=asked.quant)
    what = f"layers {asked.layers} of {asked.spec.name} need {_gb(needed)} in {numerics}"
    allowed = "" if allowed_bytes is None else f" of the {_gb(allowed_bytes)} allowed"
    free = f"{device.name} has {_gb(free_bytes)} free{allowed}"
    raise DoesNotFit(f"{what}, {free}; serve fewer{_smaller(asked, free_bytes)}")


def _smaller(asked: Asked, free_bytes: int) -> str:
    """What quantisation would help, for people; empty for none."""
    for quant in QUANTS[QUANTS.index(asked.quant) + 1 if asked.quant else 0 :]:  # each is smaller
        try:
            needed = asked.num_bytes(quant)
        except ModelUnsupported:
            return ""
        if needed <= free_bytes:
            return f", or take --quant {quant}: {_gb(needed)}"
    return ""


def check_layers(layers: LayerRange, spec: ModelSpec) -> None:
    """Raises BadLayerRange, which says what was probably meant."""
    if layers.stop <= spec.num_layers:
        return
    last = spec.num_layers - 1
    what = f"layers {layers} of {spec.name}: it has {spec.num_layers} layers, 0-{last}"
    if layers.start <= last:
        what += f"; did you mean {LayerRange(layers.start, spec.num_layers)}?"
    raise BadLayerRange(what)


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB"
