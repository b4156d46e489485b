"""One block: positions, caches, ends, and that it reads and holds its own tensors only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from p2pnode.model import tiny
from p2pnode.model.block import Block, Work
from p2pnode.model.cache import KVCache
from p2pnode.model.check import quiet_transformers
from p2pnode.model.pool import PAGE_TOKENS
from p2pnode.model.spec import read_spec
from p2pnode.types import LayerRange

TOLERANCE = 3e-6


class Checkpoint:
    """A tiny model in a folder, and the unsplit model."""

    def __init__(self, folder: Path, family: str) -> None:
        self.folder = folder
        self.whole: Any = tiny.random_model(tiny.default_config(family))
        with quiet_transformers():
            self.whole.save_pretrained(folder)
        self.spec = read_spec(folder, "tiny", "")

    def block(self, start: int, stop: int, *, ends: bool = True, dtype: str = "float32") -> Block:
        layers = LayerRange(start, stop)
        return Block.load(self.folder, self.spec, layers, device="cpu", dtype=dtype, ends=ends)

    def logits(self, token_ids: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            logits: torch.Tensor = self.whole(token_ids[None], use_cache=False).logits[0]
            return logits


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkpoint]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Checkpoint(tmp_path_factory.mktemp("llama"), "llama")
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole_block(llama: Checkpoint) -> Block:
    return llama.block(0, 4)


def run(block: Block, cache: KVCache, position: int, entry: torch.Tensor) -> torch.Tensor:
    return block.forward([Work(cache=cache, position=position, entry=entry)])[0]


def text(tokens: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, tiny.VOCAB_SIZE, (tokens,), generator=generator)


def test_a_step_beyond_the_cache_is_a_gap_and_the_cache_stays(whole_block: Block) -> None:
    cache = whole_block.new_cache(32)
    run(whole_block, cache, 0, text(5))

    with pytest.raises(ValueError, match="gap: the cache holds 5 tokens, not 6"):
        run(whole_block, cache, 6, text(1))

    assert cache.position == 5


def test_tokens_that_exceed_the_cache_are_refused(whole_block: Block) -> None:
    cache = whole_block.new_cache(8)
    run(whole_block, cache, 0, text(8))

    with pytest.raises(ValueError, match="room for 8 tokens"):
        run(whole_block, cache, 8, text(1))

    assert cache.position == 8


def test_a_step_at_an_earlier_position_overwrites_what_followed(
    llama: Checkpoint, whole_block: Block
) -> None:
    old, new = text(12), text(12, seed=1)
    cache = whole_block.new_cache(32)
    run(whole_block, cache, 0, old)

    hidden = run(whole_block, cache, 7, new[7:])

    expected = llama.logits(torch.cat([old[:7], new[7:]]))[7:]
    assert (whole_block.logits(hidden) - expected).abs().max() <= TOLERANCE
    assert cache.position == 12


def test_a_repeated_step_gives_the_same_bits(whole_block: Block) -> None:
    cache = whole_block.new_cache(32)
    run(whole_block, cache, 0, text(9))

    first = run(whole_block, cache, 9, text(1, seed=2))
    again = run(whole_block, cache, 9, text(1, seed=2))

    assert torch.equal(first, again)


def test_sessions_in_one_forward_get_what_each_gets_alone(whole_block: Block) -> None:
    texts = [text(length, seed=length) for length in (3, 70, 1)]
    caches = [whole_block.new_cache(80) for _ in texts]
    work = [Work(cache=c, position=0, entry=t) for c, t in zip(caches, texts, strict=True)]

    together = whole_block.forward(work)

    for entry, out in zip(texts, together, strict=True):
        alone = run(whole_block, whole_block.new_cache(80), 0, entry)
        assert (out - alone).abs().max() <= TOLERANCE


def test_a_cache_grows_in_pages_and_never_above_its_maximum(whole_block: Block) -> None:
    cache = whole_block.new_cache(PAGE_TOKENS + 10)
    per_token = whole_block.kv_bytes_per_token
    assert cache.num_bytes == 0

    run(whole_block, cache, 0, text(3))
    assert cache.num_bytes == PAGE_TOKENS * per_token

    run(whole_block, cache, 3, text(PAGE_TOKENS))
    assert cache.num_bytes == (PAGE_TOKENS + 10) * per_token


def test_growing_keeps_what_the_cache_holds(llama: Checkpoint, whole_block: Block) -> None:
    tokens = text(3 * PAGE_TOKENS)
    cache = whole_block.new_cache(len(tokens))
    parts = [
        run(whole_block, cache, start, tokens[start : start + 50])
        for start in range(0, len(tokens), 50)
    ]

    delta = whole_block.logits(torch.cat(parts)) - llama.logits(tokens)

    assert delta.abs().max() <= TOLERANCE


def test_hidden_states_between_blocks_are_the_unsplit_models(llama: Checkpoint) -> None:
    tokens, block = text(6), llama.block(0, 2)
    with torch.inference_mode():
        states = llama.whole(tokens[None], output_hidden_states=True).hidden_states

    assert torch.equal(block.embed(tokens, 0), states[0][0])
    assert torch.equal(block.embed_ids(tokens.tolist(), 0), states[0][0])
    out = run(block, block.new_cache(6), 0, tokens)
    assert (out - states[2][0]).abs().max() <= TOLERANCE


def test_a_block_may_be_given_what_another_embedded(whole_block: Block) -> None:
    tokens = text(6)
    from_ids = run(whole_block, whole_block.new_cache(6), 0, tokens)
    hidden = whole_block.embed(tokens, 0)

    assert torch.equal(run(whole_block, whole_block.new_cache(6), 0, hidden), from_ids)


@pytest.mark.parametrize("family", ["llama", "gpt2", "granite", "gemma2"])
def test_the_ends_alone_embed_and_make_logits_around_blocks_without_ends(
    family: str, tmp_path: Path
) -> None:
    checkpoint, tokens = Checkpoint(tmp_path, family), text(9)
    ends, middle = checkpoint.block(0, 0), checkpoint.block(0, 4, ends=False)
    assert (ends.embeds, ends.has_head, len(ends.layers)) == (True, True, 0)
    assert (middle.embeds, middle.has_head) == (False, False)
    cache = middle.new_cache(9)

    first = run(middle, cache, 0, ends.embed(tokens[:5], 0))
    rest = run(middle, cache, 5, ends.embed(tokens[5:], 5))

    delta = ends.logits(torch.cat([first, rest])) - checkpoint.logits(tokens)
    assert delta.abs().max() <= TOLERANCE


def test_a_later_block_takes_no_token_ids_and_an_earlier_one_makes_no_logits(
    llama: Checkpoint,
) -> None:
    first, last = llama.block(0, 2), llama.block(2, 4)

    with pytest.raises(ValueError, match="no embedding"):
        run(last, last.new_cache(4), 0, text(4))
    with pytest.raises(ValueError, match="no head"):
        first.logits(torch.zeros(1, llama.spec.hidden_size))


def test_a_step_that_fails_leaves_the_session_where_it_was(
    llama: Checkpoint, whole_block: Block
) -> None:
    cache, tokens = whole_block.new_cache(16), text(6)
    run(whole_block, cache, 0, tokens[:5])

    with pytest.raises((RuntimeError, IndexError)):
        run(whole_block, cache, 5, torch.tensor([10**6]))

    assert cache.position == 5
    logits = whole_block.logits(run(whole_block, cache, 5, tokens[5:]))
    assert (logits - llama.logits(tokens)[5:]).abs().max() <= TOLERANCE


def test_bfloat16_is_within_its_noise(llama: Checkpoint) -> None:
    tokens, block = text(12), llama.block(0, 4, dtype="bfloat16")
    hidden = run(block, block.new_cache(12), 0, tokens)

    assert hidden.dtype is torch.bfloat16
    assert block.num_bytes * 2 == llama.block(0, 4).num_bytes
    with quiet_transformers(), torch.inference_mode():
        whole = AutoModelForCausalLM.from_pretrained(llama.folder, dtype=torch.bfloat16)
        expected = whole(tokens[None]).logits[0].float()
    # bf16 has 8 bits of mantissa; a logit of magnitude 1 may move by a few of its last places.
    assert (block.logits(hidden) - expected).abs().max() <= 1.6e-2


def test_only_our_own_tensors_are_read_from_the_disk(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "llama")
    blocks = [checkpoint.block(0, 1), checkpoint.block(1, 3), checkpoint.block(3, 4)]
    weights = sum(file.stat().st_size for file in tmp_path.glob("*.safetensors"))

    for block in blocks:
        assert block.bytes_read == block.num_bytes
    assert sum(block.bytes_read for block in blocks) <= weights
    assert blocks[1].bytes_read < blocks[0].bytes_read + blocks[1].bytes_read < weights


def test_the_kernel_saw_no_more_reads_than_the_block_says(tmp_path: Path) -> None:
    counters = Path("/proc/self/io")
    if not counters.exists():
        pytest.skip("this system does not count what a process reads")
    config = tiny.default_config("llama")
    config.intermediate_size = 4096
    with quiet_transformers():
        tiny.random_model(config).save_pretrained(tmp_path)
    spec = read_spec(tmp_path, "tiny", "")

    def read_so_far() -> int:
        return int(counters.read_text().split("rchar: ")[1].split()[0])

    warm_up = Block.load(tmp_path, spec, LayerRange(1, 2), device="cpu", dtype="float32")
    before = read_so_far()
    block = Block.load(tmp_path, spec, LayerRange(1, 2), device="cpu", dtype="float32")
    seen = read_so_far() - before

    other_files = 64 << 10  # config.json, twice the header, and what Python itself looks up
    assert block.num_bytes > 10 * other_files
    assert block.bytes_read <= seen <= block.bytes_read + 2 * block.header_bytes + other_files
    assert warm_up.bytes_read == block.bytes_read == block.num_bytes


@pytest.mark.parametrize("family", ["llama", "granite", "gpt2", "bloom"])
def test_parts_of_a_block_share_its_tensors_and_do_not_disturb_it(
    family: str, tmp_path: Path
) -> None:
    checkpoint, tokens = Checkpoint(tmp_path, family), text(9)
    block = checkpoint.block(0, 4)
    parts = [block.part(LayerRange(0, 1)), block.part(LayerRange(1, 4))]
    assert [(part.embeds, part.has_head) for part in parts] == [(True, False), (False, True)]
    hidden = tokens
    for part in parts:
        hidden = run(part, part.new_cache(9), 0, hidden)

    whole = run(block, block.new_cache(9), 0, tokens)

    assert (hidden - whole).abs().max() <= TOLERANCE
    assert (block.logits(whole) - checkpoint.logits(tokens)).abs().max() <= TOLERANCE
    with pytest.raises(ValueError, match="not among"):
        parts[0].part(LayerRange(0, 2))


def test_progress_ends_with_all_bytes(llama: Checkpoint) -> None:
    told: list[tuple[int, int]] = []
    block = Block.load(
        llama.folder,
        llama.spec,
        LayerRange(2, 4),
        device="cpu",
        dtype="float32",
        progress=lambda done, total: told.append((done, total)),
    )

    assert told[-1] == (block.bytes_read, block.bytes_read)
    assert told == sorted(told)
