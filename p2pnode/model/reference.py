"""The unsplit model, run by `transformers` itself: what every chain is compared with."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging


@torch.inference_mode()
def greedy(
    folder: Path,
    prompt_ids: list[int],
    max_new_tokens: int,
    eos_token_ids: Collection[int] = (),
    *,
    dtype: str = "float32",
) -> list[int]:
    """The tokens that follow a prompt when the best one always wins, on this CPU.

    Ends with the first of ``eos_token_ids``, which is part of the answer, as in a chain's.
    """
    # A bar of its own would be in the middle of ours.
    logging.disable_progress_bar()
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    model.eval()
    token_ids: list[int] = []
    entry, cache = torch.tensor([prompt_ids]), None
    while len(token_ids) < max_new_tokens:
        output = model(input_ids=entry, cache=cache, use_cache=True)
        cache = output.cache
        token_ids.append(int(output.logits[0, -1].argmax()))
        if token_ids[-1] in eos_token_ids:
            break
        entry = torch.tensor([token_ids[-1:]])
    return token_ids
