"""Tensors between the wire's plain form and torch's."""

from __future__ import annotations

import math

import pytest
import torch

from p2pnode.model.tensor import TORCH_DTYPES, from_torch, is_finite, to_torch, zeros
from p2pnode.types import DTYPE_BYTES, Tensor


@pytest.mark.parametrize("dtype", sorted(DTYPE_BYTES))
@pytest.mark.parametrize("shape", [(3,), (3, 5)])
def test_values_survive_the_way_to_the_wire_and_back(dtype: str, shape: tuple[int, ...]) -> None:
    values = (torch.arange(math.prod(shape)).view(shape) - 4).to(TORCH_DTYPES[dtype])

    plain = from_torch(values)

    assert (plain.dtype, plain.shape) == (dtype, shape)
    assert torch.equal(to_torch(plain), values)
    assert torch.equal(to_torch(Tensor(dtype, shape, bytes(plain.data))), values)


def test_a_contiguous_tensor_is_not_copied() -> None:
    values = torch.zeros(4, 2)
    plain = from_torch(values)
    values[3, 1] = 1.0

    assert to_torch(plain)[3, 1] == 1.0


def test_a_view_is_sent_alone() -> None:
    plain = from_torch(torch.arange(12.0).view(3, 4)[:, 1:3])

    assert plain.num_bytes == 3 * 2 * 4
    assert to_torch(plain).tolist() == [[1, 2], [5, 6], [9, 10]]


@pytest.mark.parametrize("values", [torch.zeros(2, dtype=torch.bool), torch.zeros(1, 1, 1)])
def test_what_the_wire_does_not_carry_is_refused(values: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"wire|shape"):
        from_torch(values)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_value_that_is_not_finite_is_seen(dtype: str, bad: float) -> None:
    values = zeros((20, 30), dtype, "cpu") + torch.finfo(TORCH_DTYPES[dtype]).max
    assert is_finite(values)

    values[11, 7] = bad

    assert not is_finite(values)


def test_token_ids_are_finite() -> None:
    assert is_finite(torch.tensor([1, 2, 3]))
