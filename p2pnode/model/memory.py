"""What a block and its sessions will take, before anything is loaded: from the config alone.

Tensors are counted exactly, in the model that the config builds on the meta device; keys and values
from the config's head counts (`Block.kv_bytes_per_token` measures them after loading). `sizes` adds
them up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from p2pnode.model.families import kv_widths, max_positions
from p2pnode.model.loader import float32_names
from p2pnode.model.quant import Quantisation
from p2pnode.model.skeleton import Skeleton, build
from p2pnode.model.tensor import TORCH_DTYPES
from p2pnode.sizes import ModelSizes, PartSizes
from p2pnode.types import DTYPE_BYTES, LayerRange

NUM_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
ACTIVE_EXPERTS = ("num_experts_per_tok", "num_experts_per_token", "moe_k")


def read_sizes(config: Any, dtype: str, *, quant: str = "") -> ModelSizes:
    """What the parts of a model weigh.

    config: as `spec.read_config` gives it
    quant: how its weights are quantised, one of `numerics.QUANTS`, or empty
    Raises ModelUnsupported.
    """
    kind = TORCH_DTYPES[dtype]
    counter = _Counter.of(build(config, kind, packs=True), kind, quant)
    skeleton, whole = counter.skeleton, LayerRange(0, config.num_hidden_layers)
    nothing = LayerRange(0, 0)
    embedding = skeleton.wanted(nothing, embeds=True, has_head=False)
    head = skeleton.wanted(nothing, embeds=False, has_head=True)
    kv_bytes = sum(kv_widths(config)) * DTYPE_BYTES[dtype]
    layers = [
        skeleton.wanted(LayerRange(layer, layer + 1), embeds=False, has_head=False)
        for layer in whole
    ]
    shared = {name: tensor for name, tensor in embedding.items() if name in head}
    active = _stated(config, ACTIVE_EXPERTS)
    num_experts = _stated(config, NUM_EXPERTS)
    return ModelSizes(
        layers=tuple(counter.part(held, kv_bytes) for held in layers),
        embedding=counter.part(embedding),
        head=counter.part(head),
        tied_bytes=counter.part(shared).weights_bytes,
        hidden_size=config.hidden_size,
        vocab_size=config.vocab_size,
        max_positions=max_positions(config),
        dtype_bytes=DTYPE_BYTES[dtype],
        widest=max(_widest(skeleton, active), config.hidden_size),
        expert_share=min(1.0, active / num_experts) if active and num_experts else 1.0,
    )


@dataclass(frozen=True, slots=True)
class _Counter:
    """Counts tensors as a block keeps them."""

    skeleton: Skeleton
    dtype: torch.dtype
    quantisation: Quantisation | None
    kept: set[str]
    """Parts of names whose tensors stay in float32."""

    @classmethod
    def of(cls, skeleton: Skeleton, kind: torch.dtype, quant: str) -> _Counter:
        quantisation = None
        if quant:
            whole = LayerRange(0, skeleton.model.config.num_hidden_layers)
            wanted = skeleton.wanted(whole, embeds=True, has_head=True)
            quantisation = Quantisation.of(skeleton, wanted, kind, quant)
        return cls(skeleton, kind, quantisation, float32_names(skeleton.model, kind))

    def part(self, tensors: Mapping[str, torch.Tensor], kv_bytes: int = 0) -> PartSizes:
        """A layer or an end."""
        experts = {name: tensor for name, tensor in tensors.items() if _is_expert(name)}
        return PartSizes(
            weights_bytes=sum(self._num_bytes(*each) for each in tensors.items()),
            num_weights=_num_elements(tensors.values()),
            expert_bytes=sum(self._num_bytes(*each) for each in experts.items()),
            num_expert_weights=_num_elements(experts.values()),
            kv_bytes_per_token=kv_bytes,
        )

    def _num_bytes(self, name: str, tensor: torch.Tensor) -> int:
        if self.quantisation is not None:
            quantised = self.quantisation.num_bytes(name, tensor, self.dtype)
            if quantised is not None:
                return quantised
        size = 4 if any(part in name for part in self.kept) else tensor.dtype.itemsize
        return prod(tensor.shape) * size


def _is_expert(name: str) -> bool:
    return ".experts." in name


def _num_elements(tensors: Iterable[torch.Tensor]) -> int:
    return sum(prod(tensor.shape) for tensor in tensors)


def _widest(skeleton: Skeleton, active_experts: int) -> int:
    """Elements of the widest row that any layer makes for one token."""
    rows = [0]
    for name, tensor in skeleton.model.state_dict(keep_vars=True).items():
        if not name.startswith(skeleton.layer_prefix):
            continue
        if _is_expert(name):
            rows.append(max(1, active_experts) * max(tensor.shape[-2:], default=0))
        elif tensor.dim() == 2:
            rows.append(max(tensor.shape))
    return max(rows)


def _stated(config: Any, names: Iterable[str]) -> int:
    """The first of these that a config has as a positive number; else 0."""
    stated = (getattr(config, name, None) for name in names)
    return next((value for value in stated if isinstance(value, int) and value > 0), 0)
