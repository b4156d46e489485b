"""What a trained model is worth: bits per character, and how often its draft is right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from p2pnode.model.training.corpus import CorpusConfig, sample_rows, split_stories

STORY_BREAK = "\n----\n"
"""Stands between the stories of a held-out file."""


def sample_held_out(teacher: Any, tokenizer: Any, config: CorpusConfig) -> list[str]:
    """Stories of the same kind as the corpus; give a seed which the corpus does not use.

    Only the first story of each row is taken, and only if it was finished.
    """
    rows = sample_rows(teacher, config, seed=config.seed)
    stories = [split_stories(row)[:1] for row in rows]
    return [tokenizer.decode(story).strip() for found in stories for story in found]


def read_held_out(path: Path) -> list[str]:
    """The stories of a held-out file."""
    return path.read_text(encoding="utf-8").strip("\n").split(STORY_BREAK)


@torch.inference_mode()
def bits_per_character(model: Any, tokenizer: Any, stories: Sequence[str]) -> float:
    """How many bits the model needs for one character of these stories.

    Each story is read alone, after ``<s>``; its end is not counted.
    """
    nats, characters = 0.0, 0
    for story in stories:
        token_ids = torch.tensor([tokenizer(story)["input_ids"]])
        logits = model(input_ids=token_ids, use_cache=False).logits[0, :-1].float()
        nats += float(torch.nn.functional.cross_entropy(logits, token_ids[0, 1:], reduction="sum"))
        characters += len(story)
    return nats / math.log(2) / characters


@torch.inference_mode()
def draft_acceptance(
    model: Any, draft: Any, tokenizer: Any, stories: Sequence[str]
) -> tuple[float, float]:
    """How often the draft's next token is accepted, at every position of the stories.

    returns: greedy (both have the same first choice), and sampled at temperature 1 (the overlap
    of the two distributions, which is what speculative sampling accepts)
    """
    same, overlap, tokens = 0.0, 0.0, 0
    for story in stories:
        token_ids = torch.tensor([tokenizer(story)["input_ids"]])
        ours = model(input_ids=token_ids, use_cache=False).logits[0].float()
        drafts = draft(input_ids=token_ids, use_cache=False).logits[0].float()
        same += float((ours.argmax(-1) == drafts.argmax(-1)).sum())
        overlap += float(torch.minimum(ours.softmax(-1), drafts.softmax(-1)).sum())
        tokens += token_ids.shape[1]
    return same / tokens, overlap / tokens
