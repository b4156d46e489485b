"""The library for large products is chosen by trying, and both give the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from p2pnode.model.linear import MIN_ELEMENTS, OneDnnLinear, speed_up

LARGE, SMALL = 2048, 64


class Part(nn.Module):
    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        assert LARGE * 1024 >= MIN_ELEMENTS
        self.up = nn.Linear(1024, LARGE, bias=False, dtype=dtype).eval()
        self.down = nn.Linear(LARGE, 1024, dtype=dtype).eval()
        self.small = nn.Linear(SMALL, SMALL, dtype=dtype).eval()


def test_large_layers_change_together_or_not_at_all_and_small_ones_stay() -> None:
    part = Part()

    changed = speed_up(part)

    assert changed in (0, 2)
    assert (type(part.up) is OneDnnLinear) == (type(part.down) is OneDnnLinear) == (changed == 2)
    assert type(part.small) is nn.Linear
    assert speed_up(part) in (0, 2 - changed)


def test_other_dtypes_are_torchs_own_business() -> None:
    assert speed_up(Part(torch.bfloat16)) == 0


@pytest.mark.parametrize("tokens", [1, 2, 8, 33])
@pytest.mark.parametrize("name", ["up", "down"])
@torch.inference_mode()
def test_both_libraries_give_the_same(name: str, tokens: int) -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this build of torch comes without oneDNN")
    torch.manual_seed(tokens)  # two libraries add up in two orders: rare rows differ by more
    linear: nn.Linear = getattr(Part(), name)
    hidden = torch.randn(1, tokens, linear.in_features)
    expected = linear(hidden)

    linear.__class__ = OneDnnLinear

    assert (linear(hidden) - expected).abs().max() <= 3e-6
