"""The training corpus: stories which the teacher writes, sampled with a stated seed.

Corpus: nothing is downloaded and no text by people is used. The teacher is stories260k (MIT
licence, trained by its author on TinyStories); every token of the corpus is sampled from it, so
the corpus can be made again from the teacher and a seed. Our weights are Apache-2.0.

A row is a fixed number of tokens: ``<s>``, a story, ``<s>``, the next story, and so on; the last
story of a row is cut off. That is how the teacher itself was trained, so it ends a story by
beginning the next with ``<s>``. Rows are sampled in shards; a shard is one file, sampled from a
generator seeded by (seed, shard), so a killed run continues with the first missing shard.
"""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from p2pnode.model.training.files import load_tensors, save_tensors

log = logging.getLogger(__name__)

STORY_START = 1
"""Token id of ``<s>`` in the teacher's tokenizer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusConfig:
    """What to sample."""

    num_shards: int = 32
    rows_per_shard: int = 128
    row_tokens: int = 512
    temperature: float = 0.9
    seed: int = 2026


def sample_corpus(teacher: Any, folder: Path, config: CorpusConfig) -> torch.Tensor:
    """Sample the shards which are missing in ``folder`` and return all of them.

    returns: int64 [rows, row_tokens]
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    for shard in range(config.num_shards):
        path = folder / f"tokens-{shard:05d}.safetensors"
        if not path.exists():
            tokens = sample_rows(teacher, config, seed=config.seed * 100_000 + shard)
            save_tensors(path, {"token_ids": tokens.to(torch.int16)})
            log.info("shard sampled: shard=%d of=%d", shard + 1, config.num_shards)
        shards.append(load_tensors(path)[0]["token_ids"].to(torch.int64))
    return torch.cat(shards)


@torch.inference_mode()
def sample_rows(teacher: Any, config: CorpusConfig, *, seed: int) -> torch.Tensor:
    """Let the teacher write ``rows_per_shard`` rows side by side.

    returns: int64 [rows_per_shard, row_tokens], each beginning with ``<s>``
    """
    rng = torch.Generator().manual_seed(seed)
    token_ids = torch.full((config.rows_per_shard, 1), STORY_START)
    rows = [token_ids]
    cache = None
    for _ in range(config.row_tokens - 1):
        out = teacher(input_ids=token_ids, cache=cache, use_cache=True)
        cache = out.cache
        probs = torch.softmax(out.logits[:, -1].float() / config.temperature, dim=-1)
        token_ids = torch.multinomial(probs, 1, generator=rng)
        rows.append(token_ids)
    return torch.cat(rows, dim=1)


def split_stories(row: torch.Tensor) -> list[torch.Tensor]:
    """The complete stories of a row, without ``<s>``; the last, cut off, is left out.

    row: [row_tokens]
    returns: [tokens] each
    """
    starts = (row == STORY_START).nonzero().flatten().tolist()
    return [row[a + 1 : b] for a, b in itertools.pairwise(starts) if b > a + 1]
