"""Between the plain tensors of the wire and torch's."""

from __future__ import annotations

import sys

import torch

from p2pnode.types import Tensor

TorchTensor = torch.Tensor
"""For those who hand tensors on and may not import torch."""

TORCH_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int64": torch.int64,
}
"""By the names that the wire uses; the same set as `types.DTYPE_BYTES`."""

DTYPE_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}


def to_torch(tensor: Tensor, device: str | torch.device = "cpu") -> torch.Tensor:
    """The same values on a device: a view of a writable buffer on a CPU, else one copy.

    Raises ValueError where bytes cannot be viewed (a big-endian machine).
    """
    if sys.byteorder != "little":
        raise ValueError("tensors are little endian; this machine is not")
    data = tensor.data
    if memoryview(data).readonly:
        data = bytearray(data)
    flat = torch.frombuffer(data, dtype=TORCH_DTYPES[tensor.dtype])
    return flat.view(tensor.shape).to(device)


def from_torch(tensor: torch.Tensor) -> Tensor:
    """A plain tensor over the same memory where it is contiguous and on a CPU.

    The caller must not write to ``tensor`` afterwards. Raises ValueError for another dtype or
    for more than two dimensions.
    """
    name = DTYPE_NAMES.get(tensor.dtype)
    if name is None:
        raise ValueError(f"{tensor.dtype} does not go over the wire")
    plain = tensor.detach().to("cpu").contiguous()
    if plain.dtype is torch.bfloat16:
        plain = plain.view(torch.int16)  # numpy has no bfloat16
    return Tensor(name, tuple(tensor.shape), memoryview(plain.numpy().data).cast("B"))


def zeros(shape: tuple[int, ...], dtype: str, device: str) -> torch.Tensor:
    """A tensor of zeros, by the wire's name of the dtype."""
    return torch.zeros(shape, dtype=TORCH_DTYPES[dtype], device=device)


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether every value is finite; cheap: one pass and one number (integers always are)."""
    if not tensor.is_floating_point():
        return True
    # x * 0 is 0 for finite x and NaN otherwise; a sum of those is 0 exactly when all are finite.
    return bool((tensor * 0).sum() == 0)
