"""The baseline: `transformers` generate in this process, one thread, no network."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.generation.streamers import BaseStreamer
from transformers.utils import logging

from p2pnode.bench.timing import Timing


class _Stamps(BaseStreamer):
    """Notes when each token comes."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def put(self, value: Any) -> None:
        self.at.append(time.perf_counter())

    def end(self) -> None:
        """Nothing is left to note."""


class Local:
    """A whole model in this process."""

    def __init__(self, folder: Path) -> None:
        logging.disable_progress_bar()
        torch.set_num_threads(1)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self._model: Any = model.eval()

    @torch.inference_mode()
    def run(self, prompt: list[int], num_tokens: int) -> Timing:
        """Greedy, exactly so many tokens. Blocks."""
        stamps = _Stamps()
        began = time.perf_counter()
        self._model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            max_new_tokens=num_tokens,
            min_new_tokens=num_tokens,
            do_sample=False,
            pad_token_id=0,
            streamer=stamps,
        )
        return Timing.of(began, stamps.at[1:])  # the first call hands over the prompt
