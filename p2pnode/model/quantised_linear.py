"""Linear layers with quantised weights (`model.quant`).

The library's own layers dequantise a whole matrix for each product, which on a CPU writes and reads
it again in memory: 7 to 10 times the time of the plain product of one row. We dequantise tiles that
stay in the processor's caches. Hidden states are never quantised, so a row's result does not depend
on what is beside it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from p2pnode.model.linear import ROUNDS, seconds
from p2pnode.model.quant_library import library
from p2pnode.numerics import NF4

NF4_BLOCK = 64
"""Values that share a scale; 4 bytes each, so a weight takes 4.5 bits."""
TILE_BYTES = {"cpu": 2 << 20}
"""Dequantised at once; on a CPU no more than its caches hold beside the rows."""
OTHER_TILE_BYTES = 256 << 20
MIN_ELEMENTS = 1 << 21
"""Of the largest layer, for it to be tried."""
FEW_ROWS = 8
"""Up to so many rows torch's own product with int8 reads less memory than tiles write."""


class QuantisedLinear(nn.Linear):
    """`nn.Linear` with quantised weights; the bias is plain."""

    scales: torch.Tensor

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden: [..., in_features]; returns [..., out_features]."""
        rows = hidden.reshape(-1, self.in_features)
        out = self.product(rows)
        if self.bias is not None:
            out += self.bias
        return out.view(*hidden.shape[:-1], self.out_features)

    def product(self, rows: torch.Tensor) -> torch.Tensor:
        """rows: [tokens, in_features]; returns [tokens, out_features], a tensor of its own."""
        most_bytes = TILE_BYTES.get(rows.device.type, OTHER_TILE_BYTES)
        tile_rows = most_bytes // (self.in_features * rows.dtype.itemsize)
        tile_rows = max(NF4_BLOCK, tile_rows // NF4_BLOCK * NF4_BLOCK)  # no block is cut
        if tile_rows >= self.out_features:
            return self.part(rows, 0, self.out_features)
        out = rows.new_empty(len(rows), self.out_features)
        for start in range(0, self.out_features, tile_rows):
            stop = min(start + tile_rows, self.out_features)
            out[:, start:stop] = self.part(rows, start, stop)
        return out

    def part(self, rows: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """Some columns of the product, [tokens, stop - start]."""
        return nn.functional.linear(rows, self.tile(start, stop, rows.dtype))

    @abstractmethod
    def tile(self, start: int, stop: int, dtype: torch.dtype) -> torch.Tensor:
        """Rows of the weights, [stop - start, in_features]; ``start`` is a multiple of 64."""


class Int8Linear(QuantisedLinear):
    """weight: int8 [out_features, in_features]; scales: [out_features], the dtype's.

    Scales are applied before the sum is rounded to bfloat16, by whatever does it on this CPU: a
    sum rounded twice would differ between few rows and many by 200 times what bfloat16 does.
    """

    few_rows = 0
    """Up to so many rows go through torch's own product with int8."""
    scales_inside = False
    """Whether oneDNN applies the scales within its product."""

    def product(self, rows: torch.Tensor) -> torch.Tensor:
        """See `QuantisedLinear`."""
        if len(rows) <= self.few_rows:
            return _int8_product(rows, self.weight, self.scales)
        return super().product(rows)

    def part(self, rows: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """See `QuantisedLinear`."""
        dtype, scales = rows.dtype, self.scales[start:stop]
        if self.scales_inside:
            return _scaled_product(rows, self.tile(start, stop, dtype), scales)
        if rows.device.type != "cpu":  # float16 would overflow without the scales
            return nn.functional.linear(rows, self.tile(start, stop, dtype) * scales[:, None])
        if dtype is not torch.float32:
            rows, scales = rows.float(), scales.float()
        out = nn.functional.linear(rows, self.tile(start, stop, rows.dtype)) * scales
        return out.to(dtype)

    def tile(self, start: int, stop: int, dtype: torch.dtype) -> torch.Tensor:
        """See `QuantisedLinear`; without the scales, so exact in any dtype."""
        return self.weight[start:stop].to(dtype)


class Nf4Linear(QuantisedLinear):
    """weight: uint8 [weights / 2, 1]; scales: float32 [weights / 64]; in the order of rows."""

    def tile(self, start: int, stop: int, dtype: torch.dtype) -> torch.Tensor:
        """See `QuantisedLinear`."""
        functional = library()
        first, last = start * self.in_features, stop * self.in_features
        # In rows of one block: with rows of other than whole blocks, the library's code for
        # AVX-512 takes wrong scales (0.50).
        state = functional.QuantState(
            absmax=self.scales[first // NF4_BLOCK : last // NF4_BLOCK],
            shape=torch.Size(((last - first) // NF4_BLOCK, NF4_BLOCK)),
            blocksize=NF4_BLOCK,
            quant_type=NF4,
            dtype=dtype,
        )
        values: torch.Tensor = functional.dequantize_4bit(
            self.weight[first // 2 : last // 2], state
        )
        return values.view(stop - start, self.in_features)


@torch.inference_mode()
def choose_products(layers: list[Any]) -> None:
    """Let bfloat16 layers on a CPU use what multiplies int8 faster here, where it is right."""
    largest = max(layers, key=lambda each: each.weight.numel())
    weight, scales = largest.weight, largest.scales
    if weight.device.type != "cpu" or scales.dtype is not torch.bfloat16:
        return
    row = torch.linspace(-1, 1, largest.in_features, dtype=scales.dtype)[None]
    expected = largest.product(row)
    tile = largest.tile(0, largest.out_features, scales.dtype)
    if not _is_right(expected, _scaled_product, row, tile, scales):
        return
    for each in layers:
        each.scales_inside = True
    if weight.numel() < MIN_ELEMENTS or not _is_right(expected, _int8_product, row, weight, scales):
        return
    by_tiles: Callable[..., torch.Tensor] = largest.product
    by_tiles_s = min(seconds(by_tiles, row) for _ in range(ROUNDS))
    if min(seconds(_int8_product, row, weight, scales) for _ in range(ROUNDS)) < by_tiles_s:
        for each in layers:
            each.few_rows = FEW_ROWS


def _is_right(
    expected: torch.Tensor, product: Callable[..., torch.Tensor], *tensors: torch.Tensor
) -> bool:
    """Whether this build of torch has a product, and it comes to what is expected."""
    try:
        difference = (product(*tensors) - expected).abs().max()
    except (RuntimeError, AttributeError):
        return False
    return bool(difference <= 0.01 * expected.abs().max())


def _int8_product(rows: torch.Tensor, weight: Any, scales: Any) -> torch.Tensor:
    """The operator that torch's own compiler uses for int8 weights on CPUs."""
    out: torch.Tensor = torch.ops.aten._weight_int8pack_mm.default(rows, weight, scales)
    return out


def _scaled_product(rows: torch.Tensor, tile: Any, scales: torch.Tensor) -> torch.Tensor:
    """oneDNN's product, times the scales before it is rounded."""
    factors = scales.expand(len(rows), -1).contiguous()
    out: torch.Tensor = torch.ops.mkldnn._linear_pointwise.binary(rows, factors, tile, None, "mul")
    return out
