"""What a block may take of this machine's memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pnode.config import NodeConfig
from p2pnode.errors import DoesNotFit
from p2pnode.node.loading import load_block
from p2pnode.types import LayerRange

MIDDLE = LayerRange(3, 6)


def load(tiny: Path, cache: Path, vram_bytes: int | None, *, min_session_tokens: int = 64) -> int:
    """Tokens that sessions may hold beside the block."""
    config = NodeConfig(
        device="cpu",
        cache=cache,
        vram_bytes=vram_bytes,
        min_session_tokens=min_session_tokens,
    )
    block, figures = load_block(config, str(tiny), MIDDLE, lambda what, done, total: None)
    if vram_bytes is not None:
        held = block.num_bytes + figures.kv_capacity_tokens * figures.bytes_per_token
        assert held <= vram_bytes
    return figures.kv_capacity_tokens


def test_a_block_larger_than_allowed_is_not_even_loaded(tiny: Path, cache: Path) -> None:
    with pytest.raises(DoesNotFit, match=r"of the 0.00 GB allowed; serve fewer"):
        load(tiny, cache, 1000)


def test_sessions_get_what_the_weights_leave_of_it(tiny: Path, cache: Path) -> None:
    assert load(tiny, cache, 1_000_000) < load(tiny, cache, 2_000_000) < load(tiny, cache, None)


def test_no_room_for_one_session_is_no_room(tiny: Path, cache: Path) -> None:
    with pytest.raises(DoesNotFit, match="serve fewer layers"):
        load(tiny, cache, 200_000, min_session_tokens=4096)
