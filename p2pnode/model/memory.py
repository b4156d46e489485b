"""The sums that decide whether a block and its sessions fit, before anything is loaded.

Tensors are counted exactly, from the model that the config builds; keys and values from the
config's head counts (`Block.kv_bytes_per_token` measures them after loading).
"""

from __future__ import annotations

from math import prod
from pathlib import Path

from p2pnode.model.families import kv_widths
from p2pnode.model.loader import float32_names
from p2pnode.model.quant import Quantisation
from p2pnode.model.skeleton import build
from p2pnode.model.spec import read_config
from p2pnode.model.tensor import TORCH_DTYPES
from p2pnode.types import DTYPE_BYTES, LayerRange, ModelSpec


def block_bytes(
    folder: Path,
    spec: ModelSpec,
    layers: LayerRange,
    dtype: str,
    *,
    ends: bool = True,
    quant: str = "",
) -> int:
    """Bytes of a block's own tensors in memory; equals `Block.num_bytes` after loading.

    quant: how its weights are quantised, one of `numerics.QUANTS`, or empty
    Raises ModelFilesError, ModelUnsupported.
    """
    kind = TORCH_DTYPES[dtype]
    skeleton = build(read_config(folder), kind, packs=True)
    embeds, has_head = owned_ends(spec, layers, ends=ends)
    wanted = skeleton.wanted(layers, embeds=embeds, has_head=has_head)
    kept = float32_names(skeleton.model, kind)
    quantisation = Quantisation.of(skeleton, wanted, kind, quant) if quant else None
    total = 0
    for name, tensor in wanted.items():
        quantised = quantisation.num_bytes(name, tensor, kind) if quantisation else None
        if quantised is not None:
            total += quantised
            continue
        size = 4 if any(part in name for part in kept) else tensor.dtype.itemsize
        total += prod(tensor.shape) * size
    return total


def kv_bytes_per_token(folder: Path, layers: LayerRange, dtype: str) -> int:
    """Bytes that one token of a session costs in the cache of these layers."""
    return len(layers) * sum(kv_widths(read_config(folder))) * DTYPE_BYTES[dtype]


def owned_ends(spec: ModelSpec, layers: LayerRange, *, ends: bool) -> tuple[bool, bool]:
    """Whether a block of these layers holds (the embedding, norm and head).

    No layers at all, with ends, is the client's part for a local head: it holds both.
    """
    is_first = layers.start == 0
    is_last = layers.stop == spec.num_layers or not layers
    return ends and is_first, ends and is_last
