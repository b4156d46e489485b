"""What a block may take of this machine's memory."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from p2pnode.config import NodeConfig
from p2pnode.errors import BadRequest, DoesNotFit
from p2pnode.model.memory import block_bytes
from p2pnode.model.spec import read_spec
from p2pnode.node.loading import load_block
from p2pnode.types import LayerRange

MIDDLE = LayerRange(3, 6)


def load(
    tiny: Path,
    cache: Path,
    vram_bytes: int | None,
    *,
    min_session_tokens: int = 64,
    quant: str = "",
) -> int:
    """Tokens that sessions may hold beside the block."""
    config = NodeConfig(
        device="cpu",
        cache=cache,
        vram_bytes=vram_bytes,
        min_session_tokens=min_session_tokens,
        quant=quant,
    )
    block, figures = load_block(config, str(tiny), MIDDLE, lambda what, done, total: None)
    if vram_bytes is not None:
        held = block.num_bytes + figures.kv_capacity_tokens * figures.bytes_per_token
        assert held <= vram_bytes
    return figures.kv_capacity_tokens


def test_a_block_larger_than_allowed_is_not_even_loaded(tiny: Path, cache: Path) -> None:
    with pytest.raises(DoesNotFit, match=r"of the 0.00 GB allowed; serve fewer"):
        load(tiny, cache, 1000)


@pytest.mark.parametrize(("share", "quant"), [(0.6, "int8"), (0.24, "nf4"), (0.1, "")])
def test_quantisation_that_would_make_it_fit_is_named(
    tiny: Path, cache: Path, share: float, quant: str
) -> None:
    spec = read_spec(tiny, "tiny", "")
    allowed = int(share * block_bytes(tiny, spec, MIDDLE, "float32"))
    with pytest.raises(DoesNotFit) as caught:
        load(tiny, cache, allowed)
    hint = f"; serve fewer, or take --quant {quant}: 0.00 GB" if quant else "; serve fewer"
    assert str(caught.value).endswith(hint)


def test_a_quantisation_that_is_none_is_refused_with_the_choices() -> None:
    with pytest.raises(BadRequest, match="'q4' is not one of int8, nf4"):
        NodeConfig(quant="q4")


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
def test_quantised_weights_leave_more_room_for_sessions(tiny: Path, cache: Path) -> None:
    plain, quantised = (load(tiny, cache, 2_000_000, quant=quant) for quant in ("", "int8"))
    assert quantised > plain


def test_sessions_get_what_the_weights_leave_of_it(tiny: Path, cache: Path) -> None:
    assert load(tiny, cache, 1_000_000) < load(tiny, cache, 2_000_000) < load(tiny, cache, None)


def test_no_room_for_one_session_is_no_room(tiny: Path, cache: Path) -> None:
    with pytest.raises(DoesNotFit, match="serve fewer layers"):
        load(tiny, cache, 200_000, min_session_tokens=4096)
