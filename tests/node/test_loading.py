"""What a block may take of this machine's memory."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from p2pnode.config import NodeConfig
from p2pnode.errors import BadRequest, DoesNotFit
from p2pnode.model.memory import read_sizes
from p2pnode.model.spec import read_config
from p2pnode.node.loading import load_block
from p2pnode.types import LayerRange

MIDDLE = LayerRange(3, 6)
MULTIPLIES_ALL_SHAPES = """
import psutil, torch
from p2pnode.node.loading import tune_torch
tune_torch()
weight = torch.ones(256, 256, dtype=torch.bfloat16)
before = psutil.Process().memory_info().rss
for rows in range(1, 500):
    torch.ones(rows, 256, dtype=torch.bfloat16) @ weight
print(psutil.Process().memory_info().rss - before)
"""


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


def needed_bytes(tiny: Path, quant: str) -> int:
    """For the middle layers and a session of 64 tokens."""
    sizes = read_sizes(read_config(tiny), "float32", quant=quant)
    step_tokens = NodeConfig().prefill_chunk_tokens
    return sizes.needed(MIDDLE, session_tokens=64, step_tokens=step_tokens).total_bytes


@pytest.mark.parametrize(
    ("allowed", "named"), [("int8", "int8"), ("nf4", "nf4"), ("less than nf4", "")]
)
def test_quantisation_that_would_make_it_fit_is_named(
    tiny: Path, cache: Path, allowed: str, named: str
) -> None:
    allowed_bytes = needed_bytes(tiny, allowed if named else "nf4") - (not named)
    with pytest.raises(DoesNotFit) as caught:
        load(tiny, cache, allowed_bytes)
    hint = f"; serve fewer, or take --quant {named}: 0.00 GB" if named else "; serve fewer"
    assert str(caught.value).endswith(hint)


def test_what_was_counted_before_loading_is_what_fits(tiny: Path, cache: Path) -> None:
    assert load(tiny, cache, needed_bytes(tiny, "")) >= 64
    with pytest.raises(DoesNotFit):
        load(tiny, cache, needed_bytes(tiny, "") - 1)


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
    with pytest.raises(DoesNotFit, match=r"of it weights.*; serve fewer"):
        load(tiny, cache, 200_000, min_session_tokens=4096)


def test_batches_of_all_sizes_leave_few_compiled_kernels() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MULTIPLIES_ALL_SHAPES], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 150 << 20  # 330 MB where torch keeps them all
