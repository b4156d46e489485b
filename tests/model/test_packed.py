"""Sessions that are attended to together get what each gets alone, whoever they are."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from p2pnode.model import tiny
from p2pnode.model.block import Block, Work
from p2pnode.model.cache import KVCache
from p2pnode.model.check import quiet_transformers
from p2pnode.model.packed import arranged, grouped
from p2pnode.model.spec import read_spec
from p2pnode.types import LayerRange

TOLERANCE = 3e-6
FAMILIES = ("llama", "gemma2", "gemma3_text", "gpt_oss", "mistral", "gpt2", "cohere2")


def block_of(family: str, folder: Path) -> Block:
    torch.set_num_threads(1)
    with quiet_transformers():
        tiny.random_model(tiny.default_config(family)).save_pretrained(folder)
    spec = read_spec(folder, "tiny", "")
    return Block.load(folder, spec, LayerRange(0, 4), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Block:
    return block_of("llama", tmp_path_factory.mktemp("llama"))


class Text:
    """A session, and what its tokens give when it is computed alone and at once."""

    def __init__(self, block: Block, seed: int, tokens: int, max_tokens: int = 128) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.token_ids = torch.randint(3, tiny.VOCAB_SIZE, (tokens,), generator=generator)
        self.cache = block.new_cache(max_tokens)
        alone = Work(cache=block.new_cache(tokens), position=0, entry=self.token_ids)
        self.expected = block.forward([alone])[0]

    def work(self, position: int, tokens: int) -> Work:
        return Work(
            cache=self.cache, position=position, entry=self.token_ids[position : position + tokens]
        )


def check(texts: list[Text], block: Block, parts: list[tuple[int, int, int]]) -> None:
    """One forward of (text, position, tokens); all outputs are as expected."""
    outs = block.forward([texts[index].work(position, tokens) for index, position, tokens in parts])
    for (index, position, tokens), out in zip(parts, outs, strict=True):
        delta = (out - texts[index].expected[position : position + tokens]).abs().max()
        magnitude = texts[index].expected.abs().max().clamp(min=1.0)
        assert delta <= TOLERANCE * magnitude, (parts, index)


@pytest.mark.parametrize("family", FAMILIES)
def test_any_mix_of_steps_windows_and_prompts_is_exact(family: str, tmp_path: Path) -> None:
    block, rng = block_of(family, tmp_path), random.Random(family)
    texts = [Text(block, seed, 100) for seed in range(7)]
    for _ in range(12):
        chosen = rng.sample(range(7), rng.randint(1, 7))
        parts = []
        for index in chosen:
            held = texts[index].cache.position
            position = max(0, held - rng.choice([0, 0, 0, 2]))
            tokens = min(rng.choice([1, 1, 1, 3, 3, 20]), 100 - position)
            if tokens:
                parts.append((index, position, tokens))
        if parts:
            check(texts, block, parts)


def test_decodes_of_equally_distant_slots_are_one_group(llama: Block) -> None:
    caches = [llama.new_cache(128) for _ in range(6)]
    if not all(cache.slab is caches[0].slab for cache in caches):
        pytest.skip("memory is not lazy here: each session has a slab of its own")

    def sizes(indices: list[int], lengths: list[int]) -> list[int]:
        chosen = [caches[index] for index in indices]
        order = arranged(chosen, lengths)
        placed = [chosen[index] for index in order], [lengths[index] for index in order]
        return [len(group.caches) for group in grouped(*placed)]

    assert sizes([5, 3, 4, 1, 0, 2], [1] * 6) == [6]
    assert sizes([0, 2, 4], [3] * 3) == [3]
    assert sizes([0, 1, 4], [1] * 3) == [2, 1]
    assert sizes([0, 1, 2, 3], [1, 17, 1, 17]) == [2, 1, 1]


def test_a_long_session_does_not_pad_short_ones(llama: Block) -> None:
    short, other, long = (llama.new_cache(1 << 16) for _ in range(3))
    long.position = 60_000

    groups = grouped([short, other, long], [1, 1, 1])

    assert [group.caches for group in groups if long in group.caches] == [[long]]


def test_what_was_not_finite_does_not_come_back(llama: Block) -> None:
    bad, good = Text(llama, 1, 60), Text(llama, 2, 60)
    check([bad, good], llama, [(0, 0, 10), (1, 0, 40)])
    poisoned = [
        Work(
            cache=bad.cache, position=10, entry=torch.full((4, llama.spec.hidden_size), torch.nan)
        ),
        good.work(40, 1),
    ]

    llama.forward(poisoned)

    assert [part.is_finite for part in poisoned] == [False, True]
    for step in range(3):  # padded up to the other's length
        check([bad, good], llama, [(0, 10 + step, 1), (1, 41 + step, 1)])


def test_logits_of_several_sessions_are_those_of_each(llama: Block) -> None:
    hidden = [torch.randn(tokens, llama.spec.hidden_size) for tokens in (1, 3, 2)]

    together = llama.logits_of(hidden)

    for part, logits in zip(hidden, together, strict=True):
        assert (logits - llama.logits(part)).abs().max() <= 1e-5
    assert llama.logits_of([]) == []
    assert torch.equal(llama.logits_of(hidden[:1])[0], llama.logits(hidden[0]))


def test_a_session_that_ended_in_mid_forward_is_forgotten_after_it(llama: Block) -> None:
    cache: KVCache | None = llama.new_cache(128)
    assert cache is not None
    pool = cache.pool
    work = [Work(cache=cache, position=0, entry=torch.tensor([5, 6]))]
    cache = None
    assert pool.num_slabs == 1
    llama.forward(work)
    work.clear()
    assert pool.num_slabs == 0
