"""A model of any family without its weights: built from the config, cut to our layers.

The parts are found by structure, not by family: the layer list is the decoder's only list as long
as the model is deep, the final norm is the norm behind it, and what else has weights belongs to
the embedding. Small tensors that the code computes (rotary frequencies) are real from the start;
only `torch.empty`, which makes weights, is sent to the meta device.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForCausalLM
from transformers.initialization import no_init_weights

from p2pnode.errors import ModelUnsupported
from p2pnode.model import attention
from p2pnode.model.families import CODE_ERRORS, cut_lists, one_line
from p2pnode.types import LayerRange


class _WeightsOnMeta(TorchFunctionMode):
    """Sends what `torch.empty` makes to the meta device: weights are read later, or never."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.empty:
            kwargs = {**kwargs, "device": "meta"}
        return func(*args, **kwargs)


class _Passing(nn.Module):
    """Stands for a norm or projection that is another block's work: hidden states pass."""

    def forward(self, hidden: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """Any tensor, unchanged."""
        return hidden


class _Nothing(nn.Module):
    """Stands for an embedding that is another block's work: it adds nothing."""

    def forward(self, indices: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """A zero that broadcasts, whatever is looked up."""
        return torch.zeros(1, device=indices.device)


class _NormOutput:
    """A decoder's output that has hidden states and nothing else that a causal model may read."""

    def __init__(self, hidden: torch.Tensor) -> None:
        self.last_hidden_state = hidden

    def __getitem__(self, index: int) -> torch.Tensor | None:
        return self.last_hidden_state if index == 0 else None

    def __getattr__(self, name: str) -> None:
        return None


class _Normed(nn.Module):
    """What a causal model's own forward takes for its decoder: only the final norm."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, *_: Any, inputs_embeds: torch.Tensor, **__: Any) -> _NormOutput:
        """inputs_embeds: [1, tokens, hidden_size], raw output of the last layer."""
        return _NormOutput(self.norm(inputs_embeds))


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A causal model on the meta device and where its parts are."""

    model: Any
    base: Any
    base_name: str
    layers_name: str
    norm_name: str | None

    @property
    def hidden_size(self) -> int:
        """Of the hidden states between layers."""
        size: int = self.model.config.hidden_size
        return size

    @property
    def layer_prefix(self) -> str:
        """What the names of all layers' modules and tensors begin with."""
        return f"{self.base_name}.{self.layers_name}."

    def wanted(
        self, layers: LayerRange, *, embeds: bool, has_head: bool
    ) -> dict[str, torch.Tensor]:
        """Names (of the model's own state) and meta tensors of what a block must hold."""
        base, norm = f"{self.base_name}.", f"{self.base_name}.{self.norm_name}."
        layer = self.layer_prefix
        tied = self.model.all_tied_weights_keys
        wanted = {}
        for name, tensor in self.model.state_dict(keep_vars=True).items():
            if name.startswith(layer):
                is_ours = int(name[len(layer) :].partition(".")[0]) in range(
                    layers.start, layers.stop
                )
            elif name.startswith(base) and not name.startswith(norm):
                is_ours = embeds
            else:
                is_ours = has_head
            if is_ours:
                wanted[tied.get(name, name)] = tensor
        return wanted

    def trunk(self, layers: LayerRange) -> Any:
        """The decoder with our layers only: hidden states in, raw hidden states out."""
        parts = self._absent()
        held = getattr(self.base, self.layers_name)
        parts[self.layers_name] = nn.ModuleList(list(held)[layers.start : layers.stop])
        trunk = _with(self.base, parts)
        trunk.config = copy.deepcopy(self.base.config)
        cut_lists(trunk.config, layers.start, layers.stop)
        trunk.config.num_hidden_layers = len(layers)
        return trunk

    def entry(self) -> Any:
        """The decoder without layers and norm: token ids in, what layer 0 receives out."""
        norm: dict[str, nn.Module] = {self.norm_name: _Passing()} if self.norm_name else {}
        return self.without_layers(_with(self.base, norm))

    def without_layers(self, decoder: Any) -> Any:
        """A decoder that does only what comes before its first layer (and after its last)."""
        return _with(decoder, {self.layers_name: nn.ModuleList()})

    def head(self) -> Any:
        """The causal model around the final norm: raw hidden states in, logits out."""
        return _with_at(self.model, self.base_name, _Normed(self.norm()))

    def norm(self) -> nn.Module:
        """The final norm; one that changes nothing where a family has none."""
        norm: nn.Module = getattr(self.base, self.norm_name) if self.norm_name else nn.Identity()
        return norm

    def _absent(self) -> dict[str, nn.Module]:
        """Stand-ins for the final norm and the decoder's other children that have weights."""
        return {
            name: _Nothing() if isinstance(child, nn.Embedding) else _Passing()
            for name, child in self.base.named_children()
            if name != self.layers_name
            and (name == self.norm_name or next(child.parameters(), None) is not None)
        }


def build(config: Any, dtype: torch.dtype, *, packs: bool) -> Skeleton:
    """A model of a config without weights; raises ModelUnsupported when its parts are not found.

    packs: compute attention with our function; else as the family does by itself
    """
    attention.register()
    config = copy.deepcopy(config)
    try:
        with no_init_weights(), _WeightsOnMeta():
            model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    except CODE_ERRORS as error:
        raise ModelUnsupported(f"{config.model_type} cannot be built: {one_line(error)}") from error
    if packs and model._can_set_attn_implementation():
        model.set_attn_implementation(attention.NAME)
    model.eval()
    base = model.get_decoder()
    base_name = next((name for name, module in model.named_modules() if module is base), "")
    if not base_name or config.get_text_config() is not config:
        raise ModelUnsupported(f"{config.model_type} is not a plain decoder of text")
    depth = config.num_hidden_layers
    lists = [
        name
        for name, child in base.named_children()
        if isinstance(child, nn.ModuleList) and len(child) == depth
    ]
    if len(lists) != 1:
        raise ModelUnsupported(f"{config.model_type} has no single list of its {depth} layers")
    return Skeleton(model, base, base_name, lists[0], _norm_behind(base, lists[0]))


def _norm_behind(base: nn.Module, layers_name: str) -> str | None:
    """The final norm: the last one that follows the layers, or else one that is called final."""
    names = [name for name, _ in base.named_children()]
    norms = [name for name in names if "norm" in type(getattr(base, name)).__name__.lower()]
    behind = [name for name in norms if names.index(name) > names.index(layers_name)]
    final = behind or [name for name in norms if name.startswith("final")]
    return final[-1] if final else None


def _with(module: Any, parts: Mapping[str, nn.Module]) -> Any:
    """A shallow copy of a module with other children; tensors are shared."""
    other = copy.copy(module)
    other._modules = {**module._modules, **parts}
    return other


def _with_at(module: Any, path: str, part: nn.Module) -> Any:
    """A copy of a module with another one deep inside; only what is on the way is copied."""
    name, _, rest = path.partition(".")
    inner = _with_at(getattr(module, name), rest, part) if rest else part
    return _with(module, {name: inner})
