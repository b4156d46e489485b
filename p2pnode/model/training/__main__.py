"""Trains the built-in model and its draft, or measures them; see ``--help``."""

from __future__ import annotations

import argparse
import dataclasses
import logging
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from p2pnode.model.training.corpus import CorpusConfig
from p2pnode.model.training.files import save_text
from p2pnode.model.training.measure import (
    STORY_BREAK,
    bits_per_character,
    draft_acceptance,
    read_held_out,
    sample_held_out,
)
from p2pnode.model.training.stages import TrainingConfig, train_all

HELD_OUT = CorpusConfig(rows_per_shard=40, seed=1)


def main() -> None:
    """Parse, train what is not trained yet, measure."""
    args = parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    if not args.only_measure:
        train_all(args.teacher, args.work, args.out, training_config(args))
    measure(args.teacher, args.out, args.held_out or args.work / "held_out.txt")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m p2pnode.model.training",
        description="Train the built-in model and its draft on stories sampled from a teacher. "
        "Give the same command again to continue a run which was killed.",
    )
    add = parser.add_argument
    add("--teacher", type=Path, required=True, help="folder of stories260k")
    add("--work", type=Path, required=True, help="folder for the corpus and the checkpoints")
    add("--out", type=Path, required=True, help="folder for the model; the draft in out/draft")
    add("--threads", type=int, default=2)
    config = TrainingConfig()
    add("--base-steps", type=int, default=config.base.num_steps)
    add("--deep-steps", type=int, default=config.deep.num_steps)
    add("--draft-steps", type=int, default=config.draft.num_steps)
    add("--no-compile", action="store_true", help="train without torch.compile")
    add("--only-measure", action="store_true", help="train nothing; measure what is in --out")
    add("--held-out", type=Path, help="stories to measure on; default: sampled into --work")
    return parser.parse_args()


def training_config(args: argparse.Namespace) -> TrainingConfig:
    """The defaults with what the command line changed."""
    config = TrainingConfig()
    compiled = not args.no_compile
    return dataclasses.replace(
        config,
        base=dataclasses.replace(config.base, num_steps=args.base_steps, compile=compiled),
        deep=dataclasses.replace(config.deep, num_steps=args.deep_steps, compile=compiled),
        draft=dataclasses.replace(config.draft, num_steps=args.draft_steps, compile=compiled),
    )


def measure(teacher_folder: Path, out: Path, held_out: Path) -> None:
    """Print the figures of the model card."""
    tokenizer: Any = AutoTokenizer.from_pretrained(teacher_folder)
    teacher, model, draft = (load(f) for f in (teacher_folder, out, out / "draft"))
    if not held_out.exists():
        save_text(held_out, STORY_BREAK.join(sample_held_out(teacher, tokenizer, HELD_OUT)) + "\n")
    stories = read_held_out(held_out)
    print(f"held out: {len(stories)} stories, {sum(map(len, stories))} characters")
    for name, measured in (("teacher", teacher), ("model", model), ("draft", draft)):
        print(f"{name}: {bits_per_character(measured, tokenizer, stories):.4f} bits per character")
    greedy, sampled = draft_acceptance(model, draft, tokenizer, stories)
    print(f"draft accepted: {greedy:.3f} greedy, {sampled:.3f} sampled")


def load(folder: Path) -> Any:
    """A model in float32, whatever type its weights are stored in."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


if __name__ == "__main__":
    main()
