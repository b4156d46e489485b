"""A block's modules, ready to run: trunk (our layers), entry (embedding) and head.

All three are the family's own code around shared tensors. Whatever a family's forward does to
`inputs_embeds` before its first layer (a multiplier, positions) belongs to the entry alone; the
trunk of a family that does it to hidden states as well gets them injected behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from p2pnode.errors import ModelUnsupported
from p2pnode.model.skeleton import Skeleton
from p2pnode.types import LayerRange


class Parts:
    """What of a model one block runs. Tensors come in and go out as [1, tokens, hidden_size]."""

    def __init__(
        self, skeleton: Skeleton, layers: LayerRange, *, embeds: bool, has_head: bool, device: str
    ) -> None:
        """Take the parts of a filled skeleton; raises ModelUnsupported when one is not whole."""
        self.trunk = skeleton.trunk(layers) if layers else None
        self.entry = skeleton.entry() if embeds else None
        self.head = skeleton.head() if has_head else None
        self.norm = skeleton.norm() if has_head else None
        self._injected: torch.Tensor | None = None
        self._lookup: Any = None
        for part in (self.trunk, self.entry, self.head):
            for name, module in part.named_modules() if part is not None else ():
                _settle(name, module, device)
        if self.trunk is not None:
            self._keep_entry_out(skeleton, device)
        if self.entry is not None:
            self._shorten_entry(self.entry, device)

    def embed(self, token_ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """What layer 0 receives.

        token_ids, positions: int64 [1, tokens]
        """
        if self._lookup is not None:
            looked_up: torch.Tensor = self._lookup(token_ids)
            return looked_up
        if self.entry is None:
            raise ValueError("this block has no embedding")
        out = self.entry(input_ids=token_ids, position_ids=positions, use_cache=False)
        hidden: torch.Tensor = out.last_hidden_state
        return hidden

    def run(
        self, hidden: torch.Tensor, positions: torch.Tensor, cache: Any, **options: Any
    ) -> torch.Tensor:
        """Our layers on new tokens; ``cache`` is one of `cache.Packed` and `cache.Single`."""
        if self.trunk is None:
            return hidden
        self._injected = hidden
        try:
            out = self.trunk(
                inputs_embeds=hidden,
                position_ids=positions,
                cache=cache,
                use_cache=True,
                **options,
            )
        finally:
            self._injected = None
        result: torch.Tensor = out.last_hidden_state
        return result

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Norm, head, caps and scales: float32 [1, tokens, vocab_size]."""
        if self.head is None:
            raise ValueError("this block has no head")
        logits: torch.Tensor = self.head(inputs_embeds=hidden, use_cache=False).logits
        return logits.float()

    def normed(self, hidden: torch.Tensor) -> torch.Tensor:
        """The final norm alone: float32 [1, tokens, hidden_size]."""
        if self.norm is None:
            raise ValueError("this block has no head")
        normed: torch.Tensor = self.norm(hidden)
        return normed.float()

    def _keep_entry_out(self, skeleton: Skeleton, device: str) -> None:
        """Inject hidden states into our first layer if the forward changes them before it."""
        hidden = torch.linspace(-1, 1, 2 * skeleton.hidden_size, device=device)
        hidden = hidden.to(skeleton.model.dtype).view(1, 2, -1)
        positions = torch.arange(1, 3, device=device)[None]
        shell = skeleton.without_layers(self.trunk)
        with torch.inference_mode():
            out = shell(inputs_embeds=hidden, position_ids=positions, use_cache=False)
        if not torch.equal(out.last_hidden_state, hidden):
            first = next(iter(getattr(self.trunk, skeleton.layers_name)))
            first.register_forward_pre_hook(self._inject, with_kwargs=True)

    def _shorten_entry(self, entry: Any, device: str) -> None:
        """Where the embedding module is all there is before the first layer, call it directly."""
        lookup = entry.get_input_embeddings()
        if any(p is not lookup.weight for p in entry.parameters()):
            return
        token_ids = torch.arange(2, device=device)[None]
        with torch.inference_mode():
            if torch.equal(self.embed(token_ids, token_ids + 1), lookup(token_ids)):
                self._lookup = lookup

    def _inject(self, module: Any, args: Any, kwargs: Any) -> Any:
        if self._injected is None:
            return None  # the layer runs for another part of the same model
        if "hidden_states" in kwargs:
            return args, {**kwargs, "hidden_states": self._injected}
        return (self._injected, *args[1:]), kwargs


def fill(model: Any, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put loaded tensors in their places in a model, tied ones in all of theirs."""
    tied = model.all_tied_weights_keys.items()
    places = {name: name for name in tensors}
    places.update({name: source for name, source in tied if source in tensors})
    for name, source in places.items():
        path, _, leaf = name.rpartition(".")
        module = model.get_submodule(path)
        if leaf in module._buffers:
            module._buffers[leaf] = tensors[source]
        else:
            module._parameters[leaf] = nn.Parameter(tensors[source], requires_grad=False)


def _settle(path: str, module: nn.Module, device: str) -> None:
    """Bring what a module computed itself to our device; all else must have been loaded."""
    for name, tensor in (*module._parameters.items(), *module._buffers.items()):
        if tensor is not None and tensor.is_meta:
            raise ModelUnsupported(f"{path}.{name} is neither in the files nor computed")
    for name, tensor in module._buffers.items():
        if tensor is not None:
            module._buffers[name] = tensor.to(device)
