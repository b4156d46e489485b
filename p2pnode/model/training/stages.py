"""The stages of training, in order; each continues or is skipped when its file is complete.

corpus: the teacher writes the stories.
base: nine layers learn from the teacher.
deep: every layer of the base is stacked three times; the 27 layers learn from the teacher.
draft: two layers, beginning with the base's embeddings, learn from the same teacher. The deep
    model would teach it slightly better, but costs several times more to ask.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from p2pnode.model.training.corpus import CorpusConfig, sample_corpus
from p2pnode.model.training.distill import StageConfig, checkpoint_weights, train
from p2pnode.model.training.export import export_model
from p2pnode.model.training.files import load_tensors
from p2pnode.model.training.student import (
    load_weights,
    new_student,
    stack_layers,
    student_config,
    weights_of,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """The whole run; the defaults made the built-in model."""

    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    base: StageConfig = field(default_factory=lambda: StageConfig(num_steps=1100, batch_rows=8))
    deep: StageConfig = field(
        default_factory=lambda: StageConfig(num_steps=250, batch_rows=16, decay_part=0.4)
    )
    draft: StageConfig = field(
        default_factory=lambda: StageConfig(num_steps=600, batch_rows=8, decay_part=0.4)
    )
    base_layers: int = 9
    copies: int = 3
    draft_layers: int = 2
    seed: int = 2026


def train_all(teacher_folder: Path, work: Path, out: Path, config: TrainingConfig) -> None:
    """Run or continue every stage; ``out`` becomes the model folder, with the draft inside."""
    teacher: Any = AutoModelForCausalLM.from_pretrained(teacher_folder, dtype=torch.float32)
    rows = sample_corpus(teacher.eval(), work / "corpus", config.corpus)
    train_base(teacher, rows, work, config)
    train_deep(teacher, rows, work, config)
    export_stage(work / "deep.safetensors", config.base_layers * config.copies, teacher_folder, out)
    train_draft(teacher, rows, work, config)
    draft = out / "draft"
    export_stage(work / "draft.safetensors", config.draft_layers, teacher_folder, draft)


def train_base(teacher: Any, rows: torch.Tensor, work: Path, config: TrainingConfig) -> None:
    """Train the shallow model from random weights."""
    llama = student_config(config.base_layers, vocab_size=teacher.config.vocab_size)
    student = new_student(llama, seed=config.seed)
    train(student, teacher, rows, work / "base.safetensors", config.base)


def train_deep(teacher: Any, rows: torch.Tensor, work: Path, config: TrainingConfig) -> None:
    """Stack the shallow model's layers and go on training."""
    llama = student_config(config.base_layers * config.copies, vocab_size=teacher.config.vocab_size)
    student = new_student(llama, seed=config.seed)
    base = checkpoint_weights(load_tensors(work / "base.safetensors")[0])
    load_weights(student, stack_layers(base, config.copies))
    train(student, teacher, rows, work / "deep.safetensors", config.deep)


def train_draft(teacher: Any, rows: torch.Tensor, work: Path, config: TrainingConfig) -> None:
    """Train the draft; it needs the base, not the deep model."""
    llama = student_config(config.draft_layers, vocab_size=teacher.config.vocab_size)
    student = new_student(llama, seed=config.seed)
    base = checkpoint_weights(load_tensors(work / "base.safetensors")[0])
    embeddings = {name: tensor for name, tensor in base.items() if "layers" not in name}
    load_weights(student, weights_of(student) | embeddings)
    train(student, teacher, rows, work / "draft.safetensors", config.draft)


def export_stage(checkpoint: Path, num_layers: int, tokenizer: Path, out: Path) -> None:
    """Export the weights of a checkpoint, finished or not."""
    weights = checkpoint_weights(load_tensors(checkpoint)[0])
    vocab_size = len(weights["model.embed_tokens.weight"])
    export_model(weights, student_config(num_layers, vocab_size=vocab_size), tokenizer, out)
