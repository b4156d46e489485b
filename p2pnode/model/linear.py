"""Which library multiplies by a large matrix on this CPU: torch's default, or oneDNN.

torch hands float32 products to MKL, which on some processors (AMD's) reads a matrix twice as long
for 2 to 64 rows as for one. oneDNN, which torch brings for bfloat16, takes the same tensors as
they are. Both are exact to the last places of float32; the faster one is found by trying.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

MIN_ELEMENTS = 1 << 21
"""Smaller matrices stay in the processor's caches, and a call of oneDNN costs some 15 us more."""
ROWS = 8
"""Tried with as many sessions' tokens."""
ROUNDS = 3


class OneDnnLinear(nn.Linear):
    """`nn.Linear` through oneDNN; the same parameters."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden: [..., in_features]; returns [..., out_features]."""
        return _one_dnn(hidden, self.weight, self.bias)


def speed_up(module: nn.Module) -> int:
    """Let a part's large linear layers use the faster library here; returns how many changed.

    Quantised ones (`model.quant`) and a family's own subclasses of `nn.Linear` are left alone.
    """
    large = [each for each in module.modules() if type(each) is nn.Linear and _is_large(each)]
    if not large or not _is_faster(max(large, key=lambda each: each.weight.numel())):
        return 0
    for each in large:
        each.__class__ = OneDnnLinear
    return len(large)


def _is_large(linear: nn.Linear) -> bool:
    weight = linear.weight
    is_here = weight.device.type == "cpu" and weight.dtype is torch.float32
    return is_here and weight.is_contiguous() and weight.numel() >= MIN_ELEMENTS


@torch.inference_mode()
def _is_faster(linear: nn.Linear) -> bool:
    """Whether oneDNN is there, right, and takes less time."""
    rows = torch.linspace(-1, 1, ROWS * linear.in_features).view(1, ROWS, -1)
    weight, bias = linear.weight, linear.bias
    default = nn.functional.linear
    try:
        difference = (_one_dnn(rows, weight, bias) - default(rows, weight, bias)).abs().max()
    except (RuntimeError, AttributeError, NotImplementedError):
        return False  # this build of torch comes without it
    if not difference <= 1e-3 * weight.abs().max() * linear.in_features**0.5:
        return False
    ours, theirs = [], []
    for _ in range(ROUNDS):
        ours.append(seconds(_one_dnn, rows, weight, bias))
        theirs.append(seconds(default, rows, weight, bias))
    return min(ours) < min(theirs)


def _one_dnn(hidden: torch.Tensor, weight: Any, bias: Any) -> torch.Tensor:
    """The operator that torch's own compiler uses for linear layers on CPUs."""
    out: torch.Tensor = torch.ops.mkldnn._linear_pointwise.default(
        hidden, weight, bias, "none", [], ""
    )
    return out


def seconds(product: Callable[..., torch.Tensor], *tensors: Any) -> float:
    """What one product takes."""
    began = time.perf_counter()
    product(*tensors)
    return time.perf_counter() - began
