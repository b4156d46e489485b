"""Layers whose weights are packed: int8 with a scale per row, or NF4 with one per 64 values.

bitsandbytes packs and unpacks (int8: largest magnitude per row, Dettmers et al., LLM.int8(), 2022;
NF4: Dettmers et al., QLoRA, 2023); here is what multiplies by it. Only the linear layers of the
block are packed: embedding, norms and head stay in the dtype, so that a client's own ends fit any
block. Hidden states are never packed, so a row's result does not depend on what is beside it.

The library's own layers unpack a whole matrix for each product, which on a CPU writes and reads
it again in memory, 7 to 10 times the time of the plain product of one row. We unpack tiles that
stay in the processor's caches.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from p2pnode.errors import LocalError, ModelUnsupported
from p2pnode.model.linear import MIN_ELEMENTS, ROUNDS, seconds
from p2pnode.model.loader import float32_names
from p2pnode.model.skeleton import Skeleton
from p2pnode.numerics import INT8, NF4

LIBRARY = "bitsandbytes"
NF4_BLOCK = 64
"""Values that share a scale; 4 bytes each, so a weight takes 4.5 bits."""
INT8_STEPS = 127
PIECE_ELEMENTS = 1 << 20
"""Packed at once: the library's temporary tensors are several times as large."""
TILE_BYTES = {"cpu": 2 << 20}
"""Unpacked at once; on a CPU no more than its caches hold beside the rows."""
OTHER_TILE_BYTES = 256 << 20
FEW_ROWS = 8
"""Up to so many rows torch's own product with int8 reads less memory than tiles write."""


@dataclass(frozen=True, slots=True)
class Packing:
    """Which linear layers of a block are packed, and how."""

    kind: str
    """One of `numerics.QUANTS`."""
    paths: frozenset[str]
    """Of the modules, in the model's own names."""

    @classmethod
    def of(
        cls, skeleton: Skeleton, wanted: Mapping[str, torch.Tensor], dtype: torch.dtype, kind: str
    ) -> Packing:
        """What packing a block of these tensors means.

        Raises ModelUnsupported where most of its layers' weights are not in linear layers: experts
        in one tensor, and layers of a family's own, stay as they are.
        """
        model = skeleton.model
        kept = float32_names(model, dtype)
        tied = {*model.all_tied_weights_keys, *model.all_tied_weights_keys.values()}
        paths, num_packed = set(), 0
        for path, module in model.named_modules():
            name = f"{path}.weight"
            is_ours = path.startswith(skeleton.layer_prefix) and name in wanted
            if not is_ours or name in tied or any(part in name for part in kept):
                continue
            if type(module) is nn.Linear and not module.weight.numel() % NF4_BLOCK:
                paths.add(path)
                num_packed += module.weight.numel()
        total = sum(t.numel() for n, t in wanted.items() if n.startswith(skeleton.layer_prefix))
        if 2 * num_packed < total:
            what = f"{kind} packs linear layers, and {model.config.model_type} has {total} weights"
            raise ModelUnsupported(f"{what} in its layers of which only {num_packed} are in those")
        return cls(kind, frozenset(paths))

    def num_bytes(self, name: str, tensor: torch.Tensor, dtype: torch.dtype) -> int | None:
        """What a tensor takes packed; None for one that is not.

        tensor: [out_features, in_features], may be on the meta device
        """
        if not self._packs(name):
            return None
        if self.kind == INT8:
            return tensor.numel() + len(tensor) * dtype.itemsize
        return tensor.numel() // 2 + tensor.numel() // NF4_BLOCK * 4

    def pack(self, name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
        """The tensors that take a loaded one's place, by name; itself where it is not packed.

        tensor: [out_features, in_features], on a CPU
        Raises LocalError when the library is not there.
        """
        if not self._packs(name):
            return {name: tensor}
        pack = _pack_int8 if self.kind == INT8 else _pack_nf4
        packed, scales = pack(library(), tensor)
        return {name: packed, f"{name.removesuffix('weight')}scales": scales}

    def install(self, model: nn.Module) -> None:
        """Let a filled model's layers multiply by their packed weights."""
        layers = []
        for path in sorted(self.paths):
            module: Any = model.get_submodule(path)
            module.__class__ = Int8Linear if self.kind == INT8 else Nf4Linear
            layers.append(module)
        if self.kind == INT8 and layers:
            _choose_products(layers)

    def _packs(self, name: str) -> bool:
        path, _, leaf = name.rpartition(".")
        return leaf == "weight" and path in self.paths


class PackedLinear(nn.Linear):
    """`nn.Linear` with packed weights; the bias is plain."""

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

    def tile(self, start: int, stop: int, dtype: torch.dtype) -> torch.Tensor:
        """Rows of the weights, [stop - start, in_features]; ``start`` is a multiple of 64."""
        raise NotImplementedError


class Int8Linear(PackedLinear):
    """weight: int8 [out_features, in_features]; scales: [out_features], the dtype's.

    Scales are applied before the sum is rounded to bfloat16, by whatever does it on this CPU: a
    sum rounded twice would differ between few rows and many by 200 times what bfloat16 does.
    """

    few_rows = 0
    """Up to so many rows go through torch's own product with int8."""
    scales_inside = False
    """Whether oneDNN applies the scales within its product."""

    def product(self, rows: torch.Tensor) -> torch.Tensor:
        """See `PackedLinear`."""
        if len(rows) <= self.few_rows:
            return _int8_product(rows, self.weight, self.scales)
        return super().product(rows)

    def part(self, rows: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """See `PackedLinear`."""
        dtype, scales = rows.dtype, self.scales[start:stop]
        if self.scales_inside:
            return _scaled_product(rows, self.tile(start, stop, dtype), scales)
        if rows.device.type == "cpu" and dtype is not torch.float32:
            rows, scales = rows.float(), scales.float()
        out = nn.functional.linear(rows, self.tile(start, stop, rows.dtype)) * scales
        return out.to(dtype)

    def tile(self, start: int, stop: int, dtype: torch.dtype) -> torch.Tensor:
        """See `PackedLinear`; without the scales, so exact in any dtype."""
        return self.weight[start:stop].to(dtype)


class Nf4Linear(PackedLinear):
    """weight: uint8 [weights / 2, 1]; scales: float32 [weights / 64]; in the order of rows."""

    def tile(self, start: int, stop: int, dtype: torch.dtype) -> torch.Tensor:
        """See `PackedLinear`."""
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


def ensure_installed(kind: str, library: str = LIBRARY) -> None:
    """Raises LocalError, which says what to install, when packing needs what is not there."""
    if kind and find_spec(library) is None:
        what = f"--quant {kind} needs {library}, which is not installed"
        raise LocalError(f"{what}: pip install 'p2pnode[quant]'")


def library() -> Any:
    """`bitsandbytes.functional`; the first call takes seconds. Raises LocalError without it."""
    loaded = sys.modules.get(f"{LIBRARY}.functional")
    if loaded is not None:
        return loaded
    ensure_installed("int8|nf4")
    with _nothing_fetched():
        try:
            from bitsandbytes import functional
        except (ImportError, OSError, RuntimeError) as error:
            reason = str(error).partition("\n")[0][:200]
            raise LocalError(f"{LIBRARY} is installed and cannot be used: {reason}") from error
    return functional


@contextmanager
def _nothing_fetched() -> Iterator[None]:
    """Keep the library from fetching compiled code from a hub when it is imported.

    It does so where the package `kernels` is installed; None in the place of a module is an
    ImportError, which the library copes with, and warns of.
    """
    held = sys.modules.get("kernels")
    logger = logging.getLogger(LIBRARY)
    level = logger.level
    sys.modules["kernels"] = None  # type: ignore[assignment]
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        del sys.modules["kernels"]
        if held is not None:
            sys.modules["kernels"] = held


def _pack_int8(functional: Any, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """int8 [out_features, in_features], and what its steps are worth in each row."""
    packed = torch.empty(weight.shape, dtype=torch.int8)
    scales = torch.empty(len(weight), dtype=weight.dtype)
    piece = max(1, PIECE_ELEMENTS // weight.shape[1])
    for start in range(0, len(weight), piece):
        rows = slice(start, start + piece)
        packed[rows], largest, _ = functional.int8_vectorwise_quant(weight[rows])
        scales[rows] = largest / INT8_STEPS
    return packed, scales


def _pack_nf4(functional: Any, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 [weights / 2, 1], and float32 [weights / 64]."""
    packed = torch.empty(weight.numel() // 2, 1, dtype=torch.uint8)
    scales = torch.empty(weight.numel() // NF4_BLOCK)
    for index, piece in enumerate(weight.flatten().split(PIECE_ELEMENTS)):
        start, stop = index * PIECE_ELEMENTS, index * PIECE_ELEMENTS + len(piece)
        packed[start // 2 : stop // 2], state = functional.quantize_4bit(
            piece, blocksize=NF4_BLOCK, quant_type=NF4
        )
        scales[start // NF4_BLOCK : stop // NF4_BLOCK] = state.absmax
    return packed, scales


@torch.inference_mode()
def _choose_products(layers: list[Any]) -> None:
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
    except (RuntimeError, AttributeError, NotImplementedError):
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
