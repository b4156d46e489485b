"""What multiplies large matrices is chosen by trying, and all ways give the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from p2pnode.model import linear
from p2pnode.model.check import check_family
from p2pnode.model.linear import BlockedLinear, OneDnnLinear, speed_up

LARGE, SMALL = 2048, 64
EVERY_SIZE = dict.fromkeys((torch.float32, torch.bfloat16), 0)

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this build of torch comes without oneDNN"
)


class Part(nn.Module):
    """Two large layers, one of them with a bias, and a small one."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up = nn.Linear(1024, LARGE, bias=False, dtype=dtype).eval()
        self.down = nn.Linear(LARGE, 1024, dtype=dtype).eval()
        self.small = nn.Linear(SMALL, SMALL, dtype=dtype).eval()
        self.requires_grad_(requires_grad=False)


class Tied(Part):
    """Its embedding has the weight of its head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(LARGE, 1024)
        self.embedding.weight = self.up.weight


def choose(monkeypatch: pytest.MonkeyPatch, kind: type[nn.Linear]) -> None:
    """Whatever is fastest here."""
    monkeypatch.setattr(linear, "_fastest", lambda weights: kind)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_layers_change_together_or_not_at_all_and_small_ones_stay(dtype: torch.dtype) -> None:
    part = Part(dtype)

    changed = speed_up(part)

    assert changed in (0, 2)
    assert type(part.up) is type(part.down)
    assert (type(part.up) is nn.Linear) == (changed == 0)
    assert type(part.small) is nn.Linear


def test_how_far_the_laying_out_is_can_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    choose(monkeypatch, BlockedLinear)
    part = Part()
    sizes = [part.up.weight.nbytes, part.down.weight.nbytes]
    told: list[tuple[int, int]] = []

    speed_up(part, progress=lambda done, total: told.append((done, total)))

    assert told == [(0, sum(sizes)), (sizes[0], sum(sizes))]


def test_other_dtypes_are_torchs_own_business() -> None:
    assert speed_up(Part(torch.float16)) == 0


@pytest.mark.parametrize("kind", [OneDnnLinear, BlockedLinear])
@pytest.mark.parametrize("tokens", [0, 1, 2, 5, 8, 33])
@pytest.mark.parametrize(("dtype", "places"), [(torch.float32, 3e-6), (torch.bfloat16, 1 / 128)])
@torch.inference_mode()
def test_all_ways_give_the_same(
    monkeypatch: pytest.MonkeyPatch,
    kind: type[nn.Linear],
    tokens: int,
    dtype: torch.dtype,
    places: float,
) -> None:
    choose(monkeypatch, kind)
    part = Part(dtype)
    torch.manual_seed(tokens)  # two libraries add up in two orders: rare rows differ by more
    hidden = torch.randn(1, tokens, 1024, dtype=dtype)
    expected = part.down(part.up(hidden))

    assert speed_up(part) == 2

    assert type(part.up) is type(part.down) is kind
    assert torch.allclose(part.down(part.up(hidden)), expected, rtol=0, atol=places)


def test_a_weight_that_the_embedding_shares_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    choose(monkeypatch, BlockedLinear)
    tied = Tied()

    speed_up(tied)

    assert tied.up.weight is tied.embedding.weight
    assert type(tied.up) is OneDnnLinear
    assert type(tied.down) is BlockedLinear


def test_all_is_taken_back_where_a_family_reads_a_weight_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    choose(monkeypatch, BlockedLinear)
    part, row = Part(), torch.ones(1, 1024)
    before = part.up.weight.clone()

    def reads_the_weight() -> bool:
        try:
            nn.functional.linear(row, part.up.weight)
        except RuntimeError:
            return False
        return True

    assert speed_up(part, reads_the_weight) == 0

    assert reads_the_weight()
    assert type(part.up) is nn.Linear
    assert torch.equal(part.up.weight, before)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma", "starcoder2", "bloom"])
def test_families_are_exact_with_every_layer_blocked(
    monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    torch.set_num_threads(1)
    choose(monkeypatch, BlockedLinear)
    monkeypatch.setattr(linear, "MIN_ELEMENTS", EVERY_SIZE)

    check = check_family(family)

    assert check.ok, check.reason
    assert check.max_delta_logit <= 3e-6
