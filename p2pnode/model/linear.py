"""How to multiply by a block's large matrices on this CPU, found by trying.

- **torch**: what `nn.Linear` does by itself. It hands float32 products to MKL, which on some
  processors (AMD's) reads a matrix twice as long for 2 to 64 rows as for one.
- **oneDNN**, which torch brings for bfloat16, with the matrix as it is.
- **oneDNN, blocked**: the matrix is laid out once in the order in which the kernel reads it, which
  it would else copy it into for every product. In bfloat16 that saves a fifth to a third of the
  time for few rows and 10 % for many; in float32 a single row may take longer.

All are exact to the last places of the dtype.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

MIN_ELEMENTS = {torch.float32: 1 << 21, torch.bfloat16: 1 << 18}
"""Smaller matrices stay in the processor's caches, where the calls' own time decides; float32
would take some 15 us more."""
NUM_ROWS = 1, 8
"""Tried with one session's token, and with as many sessions'."""
ROUNDS = 3
SAMPLE_BYTES = 64 << 20
"""Tried on matrices that together do not stay in the processor's caches."""
SINGLE_LOSS = 1.05
"""What is better for many rows must not make a single one slower than this."""
FEW_ROWS = 4
"""The kernels for fewer rows read a blocked matrix more slowly than the one for so many."""

Product = Callable[[torch.Tensor, Any, Any], torch.Tensor]
"""Rows, weight, bias."""


class OneDnnLinear(nn.Linear):
    """`nn.Linear` through oneDNN; the same parameters."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden: [..., in_features]; returns [..., out_features]."""
        return _one_dnn(hidden, self.weight, self.bias)


class BlockedLinear(nn.Linear):
    """`nn.Linear` through oneDNN; the weight is opaque, only oneDNN can read it."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden: [..., in_features]; returns [..., out_features]."""
        rows = hidden.reshape(-1, self.in_features)
        out = _blocked(rows, self.weight, self.bias)
        return out.view(*hidden.shape[:-1], self.out_features)


OnBytes = Callable[[int, int], None]
"""Told how many bytes are done, and how many there are to do, on the thread that works."""


def speed_up(
    model: nn.Module,
    still_works: Callable[[], bool] = lambda: True,
    progress: OnBytes = lambda done, total: None,
) -> int:
    """Let a filled model's large linear layers use what is fastest here; returns how many do.

    still_works: asked afterwards; if not (the family reads a weight itself), all is taken back
    One matrix at a time is there twice, where nobody else keeps it. Quantised layers
    (`model.quant`) and a family's own subclasses of `nn.Linear` are left alone, and weights that
    the embedding shares stay as they are.
    """
    large = [each for each in model.modules() if type(each) is nn.Linear and _is_large(each)]
    if not large:
        return 0
    fastest = _fastest(_sample(large))
    if fastest is nn.Linear:
        return 0
    shared, done, total = _shared(model), 0, sum(each.weight.nbytes for each in large)
    for each in large:
        progress(done, total)
        done += each.weight.nbytes
        if fastest is OneDnnLinear or each.weight.data_ptr() in shared:
            each.__class__ = OneDnnLinear
        else:
            each.weight = nn.Parameter(_reordered(each.weight), requires_grad=False)
            each.__class__ = BlockedLinear
    if not still_works():
        _undo(large)
        return 0
    return len(large)


def _undo(changed: Sequence[nn.Linear]) -> None:
    """The same weights as before."""
    for each in changed:
        weight: Any = each.weight
        if weight.is_mkldnn:
            each.weight = nn.Parameter(weight.to_dense(weight.dtype), requires_grad=False)
        each.__class__ = nn.Linear


def _is_large(linear: nn.Linear) -> bool:
    weight = linear.weight
    least = MIN_ELEMENTS.get(weight.dtype)
    is_here = weight.device.type == "cpu" and weight.is_contiguous()
    return least is not None and is_here and weight.numel() >= least


def _sample(linears: Sequence[nn.Linear]) -> list[torch.Tensor]:
    """Weights to try with: some of those that make up most of all bytes."""
    alike: dict[tuple[torch.dtype, torch.Size], list[torch.Tensor]] = {}
    for each in linears:
        weight = each.weight.detach()
        alike.setdefault((weight.dtype, weight.shape), []).append(weight)
    most = max(alike.values(), key=lambda weights: sum(weight.nbytes for weight in weights))
    return most[: -(-SAMPLE_BYTES // most[0].nbytes)]


def _shared(model: nn.Module) -> set[int]:
    """Where weights lie that several modules use."""
    seen, shared = set[int](), set[int]()
    for module in model.modules():
        weight = module._parameters.get("weight")
        if weight is not None and weight.device.type == "cpu" and not weight.is_mkldnn:
            place = weight.data_ptr()
            (shared if place in seen else seen).add(place)
    return shared


@torch.inference_mode()
def _fastest(weights: list[torch.Tensor]) -> type[nn.Linear]:
    """What takes least for all of `NUM_ROWS` together, is right, and no slower for one row."""
    try:
        tried: dict[type[nn.Linear], tuple[Product, list[torch.Tensor]]] = {
            nn.Linear: (nn.functional.linear, weights),
            OneDnnLinear: (_one_dnn, weights),
            BlockedLinear: (_blocked, [_reordered(weight) for weight in weights]),
        }
        if not all(_is_right(product, weights[0], each[0]) for product, each in tried.values()):
            return nn.Linear
    except (RuntimeError, AttributeError):
        return nn.Linear  # this build of torch comes without it
    times = {kind: [float("inf")] * len(NUM_ROWS) for kind in tried}
    for _ in range(ROUNDS):
        for kind, (product, each) in tried.items():
            for index, num_rows in enumerate(NUM_ROWS):
                took_s = seconds(_pass, product, _rows(weights[0], num_rows), each)
                times[kind][index] = min(times[kind][index], took_s)
    single_s = SINGLE_LOSS * times[nn.Linear][0]
    return min((kind for kind in times if times[kind][0] <= single_s), key=lambda k: sum(times[k]))


def _rows(weight: torch.Tensor, num_rows: int) -> torch.Tensor:
    rows = torch.linspace(-1, 1, num_rows * weight.shape[1], dtype=weight.dtype)
    return rows.view(num_rows, -1)


def _pass(product: Product, rows: torch.Tensor, weights: Sequence[torch.Tensor]) -> None:
    for weight in weights:
        product(rows, weight, None)


def _is_right(product: Product, weight: torch.Tensor, own: torch.Tensor) -> bool:
    """Whether a product, with its own form of a weight, is what it should be."""
    rows = _rows(weight, max(NUM_ROWS))
    expected = nn.functional.linear(rows, weight)
    difference = (product(rows, own, None) - expected).abs().max()
    places = 1e-3 if weight.dtype is torch.float32 else 2e-2
    return bool(difference <= places * weight.abs().max() * weight.shape[1] ** 0.5)


def _one_dnn(hidden: torch.Tensor, weight: Any, bias: Any) -> torch.Tensor:
    """The operator that torch's own compiler uses for linear layers on CPUs."""
    out: torch.Tensor = torch.ops.mkldnn._linear_pointwise.default(
        hidden, weight, bias, "none", [], ""
    )
    return out


def _blocked(rows: torch.Tensor, weight: Any, bias: Any) -> torch.Tensor:
    """rows: [tokens, in_features]."""
    num_rows = len(rows)
    if num_rows < FEW_ROWS:
        rows = nn.functional.pad(rows, (0, 0, 0, FEW_ROWS - num_rows))
    return _one_dnn(rows, weight, bias)[:num_rows]


def _reordered(weight: torch.Tensor) -> torch.Tensor:
    """A copy in the order in which oneDNN reads it; equal again by `to_dense`."""
    out: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, max(NUM_ROWS))
    return out


def seconds(product: Callable[..., object], *tensors: Any) -> float:
    """What one product takes."""
    began = time.perf_counter()
    product(*tensors)
    return time.perf_counter() - began
