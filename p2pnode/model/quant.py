"""Layers whose weights are quantised: int8 with a scale per row, or NF4 with one per 64 values.

bitsandbytes quantises and dequantises (int8: largest magnitude per row, Dettmers et al.,
LLM.int8(), 2022; NF4: Dettmers et al., QLoRA, 2023); `model.quantised_linear` multiplies. Only the
linear layers of the block are quantised: embedding, norms and head stay in the dtype, so that a
client's own ends fit any block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from p2pnode.errors import ModelUnsupported
from p2pnode.model.loader import float32_names
from p2pnode.model.quant_library import library
from p2pnode.model.quantised_linear import NF4_BLOCK, Int8Linear, Nf4Linear, choose_products
from p2pnode.model.skeleton import Skeleton
from p2pnode.numerics import INT8, NF4

INT8_STEPS = 127
PIECE_ELEMENTS = 1 << 20
"""Quantised at once: the library's temporary tensors are several times as large."""


@dataclass(frozen=True, slots=True)
class Quantisation:
    """Which linear layers of a block are quantised, and how."""

    kind: str
    """One of `numerics.QUANTS`."""
    paths: frozenset[str]
    """Of the modules, in the model's own names."""

    @classmethod
    def of(
        cls, skeleton: Skeleton, wanted: Mapping[str, torch.Tensor], dtype: torch.dtype, kind: str
    ) -> Quantisation:
        """Which of a block's tensors are quantised.

        Raises ModelUnsupported where most of its layers' weights are not in linear layers: experts
        in one tensor, and layers of a family's own, stay as they are.
        """
        model = skeleton.model
        kept = float32_names(model, dtype)
        tied = {*model.all_tied_weights_keys, *model.all_tied_weights_keys.values()}
        paths, num_quantised = set(), 0
        for path, module in model.named_modules():
            name = f"{path}.weight"
            is_ours = path.startswith(skeleton.layer_prefix) and name in wanted
            if not is_ours or name in tied or any(part in name for part in kept):
                continue
            if type(module) is nn.Linear and not module.weight.numel() % NF4_BLOCK:
                paths.add(path)
                num_quantised += module.weight.numel()
        total = sum(t.numel() for n, t in wanted.items() if n.startswith(skeleton.layer_prefix))
        if 2 * num_quantised < total:
            what = f"{model.config.model_type} has {total} weights in its layers"
            raise ModelUnsupported(f"{what}, and only {num_quantised} that {kind} can quantise")
        return cls(kind, frozenset(paths))

    def num_bytes(self, name: str, tensor: torch.Tensor, dtype: torch.dtype) -> int | None:
        """What a tensor takes quantised; None for one that is not.

        tensor: [out_features, in_features], may be on the meta device
        """
        if not self._covers(name):
            return None
        if self.kind == INT8:
            return tensor.numel() + len(tensor) * dtype.itemsize
        return tensor.numel() // 2 + tensor.numel() // NF4_BLOCK * 4

    def quantise(self, name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
        """The tensors that take a loaded one's place, by name; itself where it is not quantised.

        tensor: [out_features, in_features], on a CPU
        Raises LocalError when the library is not there.
        """
        if not self._covers(name):
            return {name: tensor}
        quantise = _quantise_int8 if self.kind == INT8 else _quantise_nf4
        quantised, scales = quantise(library(), tensor)
        return {name: quantised, f"{name.removesuffix('weight')}scales": scales}

    def install(self, model: nn.Module) -> None:
        """Let a filled model's layers multiply by their quantised weights."""
        layers = []
        for path in sorted(self.paths):
            module: Any = model.get_submodule(path)
            module.__class__ = Int8Linear if self.kind == INT8 else Nf4Linear
            layers.append(module)
        if self.kind == INT8 and layers:
            choose_products(layers)

    def _covers(self, name: str) -> bool:
        path, _, leaf = name.rpartition(".")
        return leaf == "weight" and path in self.paths


def _quantise_int8(functional: Any, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """int8 [out_features, in_features], and what its steps are worth in each row."""
    quantised = torch.empty(weight.shape, dtype=torch.int8)
    scales = torch.empty(len(weight), dtype=weight.dtype)
    piece = max(1, PIECE_ELEMENTS // weight.shape[1])
    for start in range(0, len(weight), piece):
        rows = slice(start, start + piece)
        quantised[rows], largest, _ = functional.int8_vectorwise_quant(weight[rows])
        scales[rows] = largest / INT8_STEPS
    return quantised, scales


def _quantise_nf4(functional: Any, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 [weights / 2, 1], and float32 [weights / 64]."""
    quantised = torch.empty(weight.numel() // 2, 1, dtype=torch.uint8)
    scales = torch.empty(weight.numel() // NF4_BLOCK)
    for index, piece in enumerate(weight.flatten().split(PIECE_ELEMENTS)):
        start, stop = index * PIECE_ELEMENTS, index * PIECE_ELEMENTS + len(piece)
        quantised[start // 2 : stop // 2], state = functional.quantize_4bit(
            piece, blocksize=NF4_BLOCK, quant_type=NF4
        )
        scales[start // NF4_BLOCK : stop // NF4_BLOCK] = state.absmax
    return quantised, scales
