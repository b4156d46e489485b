"""From a model's name to a loaded block and its figures; runs on a thread, may take minutes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from p2pnode.config import NodeConfig, set_where_unset
from p2pnode.errors import BadLayerRange, DoesNotFit, ModelUnsupported
from p2pnode.model.block import Block
from p2pnode.model.check import ensure_supported
from p2pnode.model.device import (
    Device,
    choose_device,
    default_dtype,
    return_freed_memory,
)
from p2pnode.model.memory import read_sizes
from p2pnode.model.quant_library import ensure_installed
from p2pnode.model.source import find_model
from p2pnode.model.spec import read_config, read_spec
from p2pnode.node.figures import Figures, measure
from p2pnode.node.limits import within
from p2pnode.node.wire_gate import ensure_passed
from p2pnode.numerics import QUANTS, Numerics
from p2pnode.sizes import Needed
from p2pnode.types import LayerRange, ModelSpec

log = logging.getLogger(__name__)

COMPILED_KERNELS = 32
"""So many kernels that were compiled for one shape are kept: enough for the batches of a model."""

Progress = Callable[[str, int, int], None]
"""Told what is going on, and how many bytes of how many are done."""


def tune_torch() -> None:
    """Before the first tensor is made: how torch uses a CPU's memory.

    oneDNN makes a kernel of some 0.6 MB for every shape of a bfloat16 product, and both it and
    torch keep 1,024. Batches come in all sizes, so a node would grow by hundreds of MB.
    In large pages weights are read faster: less is looked up (Linux; 2 to 20 % of a forward here).
    """
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        set_where_unset(name, str(COMPILED_KERNELS))
    set_where_unset("THP_MEM_ALLOC_ENABLE", "1")


def load_block(
    config: NodeConfig, name: str | None, layers: LayerRange, progress: Progress
) -> tuple[Block, Figures]:
    """Find, check, count, load, measure.

    Raises UnknownModel, ModelFilesError, ModelUnsupported, BadLayerRange, DoesNotFit, BadRequest,
    LocalError when the library that quantises weights is asked for and missing.
    """
    tune_torch()
    ensure_installed(config.quant)
    files = find_model(name, cache=config.cache, layers=LayerRange(0, 0))
    spec = read_spec(files.folder, files.name, files.fingerprint)
    check_layers(layers, spec)
    ensure_passed(files, config.wire, cache=config.cache)
    files = find_model(name, cache=config.cache, layers=layers, progress=progress)
    device = within(choose_device(config.device), config.vram_bytes)
    dtype, reason = config.dtype, "as asked"
    if dtype == "auto":
        sizes = read_sizes(read_config(files.folder), "float32")
        dtype, reason = default_dtype(device, sizes.weights_bytes(sizes.whole))
    needed = _ensure_fits(Asked(files.folder, spec, layers, dtype, config), device)
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
        arranging=partial(progress, "arranging"),
    )
    return_freed_memory()
    numerics = Numerics(dtype, quant=config.quant)
    log.info("loaded: model=%s layers=%s dtype=%s (%s)", spec.name, layers, numerics, reason)
    free_now = choose_device(config.device)
    free_now = within(free_now, config.vram_bytes, used_bytes=block.num_bytes)
    return block, measure(
        block,
        free_now,
        max_session_tokens=config.min_session_tokens,
        activation_bytes=needed.activation_bytes,
    )


@dataclass(frozen=True, slots=True)
class Asked:
    """The block that is to be loaded."""

    folder: Path
    spec: ModelSpec
    layers: LayerRange
    dtype: str
    config: NodeConfig

    def needed(self, quant: str) -> Needed:
        """For the block and one session; raises ModelFilesError, ModelUnsupported.

        quant: how its weights are quantised
        """
        sizes = read_sizes(read_config(self.folder), self.dtype, quant=quant)
        return sizes.needed(
            self.layers,
            session_tokens=min(self.config.min_session_tokens, self.spec.max_positions),
            step_tokens=self.config.prefill_chunk_tokens,
        )


def _ensure_fits(asked: Asked, device: Device) -> Needed:
    """Raises DoesNotFit, which names the quantisation in which the block would fit, if one does."""
    config, free_bytes = asked.config, device.free_bytes
    needed = asked.needed(config.quant)
    if needed.total_bytes <= free_bytes:
        return needed
    numerics = Numerics(asked.dtype, quant=config.quant)
    parts = f"{_gb(needed.weights_bytes)} of it weights"
    total = f"need {_gb(needed.total_bytes)} ({parts}) in {numerics}"
    what = f"layers {asked.layers} of {asked.spec.name} {total}"
    allowed = "" if config.vram_bytes is None else f" of the {_gb(config.vram_bytes)} allowed"
    free = f"{device.name} has {_gb(free_bytes)} free{allowed}"
    raise DoesNotFit(f"{what}, {free}; serve fewer{_smaller(asked, free_bytes)}")


def _smaller(asked: Asked, free_bytes: int) -> str:
    """What quantisation would help, for people; empty for none."""
    quant = asked.config.quant
    for other in QUANTS[QUANTS.index(quant) + 1 if quant else 0 :]:  # each is smaller
        try:
            needed = asked.needed(other)
        except ModelUnsupported:
            return ""
        if needed.total_bytes <= free_bytes:
            return f", or take --quant {other}: {_gb(needed.total_bytes)}"
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
