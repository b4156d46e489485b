"""Distillation: a student learns the teacher's whole distribution at every position.

Rules of this file:

- What step N does depends on the seed, N and the weights before it, on nothing else. So a run
  which was killed and resumed from its last checkpoint ends with the same bits (on the same
  machine, with the same number of threads).
- A checkpoint holds weights, optimizer state and the number of steps done, in one safetensors
  file which is replaced atomically.
- The learning rate warms up, stays, and falls linearly to zero in the last part of the run, so
  ``num_steps`` may be changed between two resumes as long as the fall has not begun.
- The teacher ends a story with ``<s>``, the beginning of the next. Students learn to end it with
  ``</s>``: the teacher's probability of ``<s>`` is counted as ``</s>``. As input either may
  stand between stories, so text goes on sensibly even when the end is ignored.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from p2pnode.model.training.corpus import STORY_START
from p2pnode.model.training.files import load_tensors, save_tensors
from p2pnode.model.training.student import load_weights, weights_of

log = logging.getLogger(__name__)

STORY_END = 2
"""Token id of ``</s>``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageConfig:
    """One stage of training."""

    num_steps: int
    batch_rows: int = 8
    matrix_lr: float = 5e-3
    """For the layers' matrices, by Muon (scaled to match AdamW's step)."""
    vector_lr: float = 4e-3
    """For embeddings and norms, by AdamW."""
    warmup_steps: int = 50
    decay_part: float = 0.0
    """The last part of the run in which the learning rate falls to zero."""
    save_every: int = 25
    seed: int = 2026
    compile: bool = True


def train(
    student: Any, teacher: Any, rows: torch.Tensor, checkpoint: Path, config: StageConfig
) -> None:
    """Train ``student`` to ``num_steps``, from ``checkpoint`` if there is one.

    rows: int64 [rows, row_tokens]
    """
    optimizers = make_optimizers(student, config)
    first = 0
    if checkpoint.exists():
        first = load_checkpoint(checkpoint, student, optimizers)
        log.info("resumed: checkpoint=%s step=%d", checkpoint.name, first)
    if config.compile:
        # Layer by layer: one compilation serves all layers.
        for layer in student.model.layers:
            layer.compile(dynamic=False)
    student.train()
    started = time.monotonic()
    for step in range(first, config.num_steps):
        loss = train_step(student, teacher, batch_at(rows, step, config), optimizers, step, config)
        done = step + 1
        if done % 20 == 0:
            num_tokens = (done - first) * config.batch_rows * rows.shape[1]
            rate = num_tokens / (time.monotonic() - started)
            log.info(
                "step=%d of=%d loss=%.4f tokens_per_s=%.0f", done, config.num_steps, loss, rate
            )
        if done % config.save_every == 0 or done == config.num_steps:
            save_checkpoint(checkpoint, student, optimizers, done)


def train_step(
    student: Any,
    teacher: Any,
    token_ids: torch.Tensor,
    optimizers: list[torch.optim.Optimizer],
    step: int,
    config: StageConfig,
) -> float:
    """One update from one batch; returns the loss before it, in nats per token.

    token_ids: int64 [batch_rows, row_tokens]
    """
    targets = teacher_targets(teacher, token_ids)
    inputs = with_story_ends(token_ids, seed=config.seed + step)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = student(input_ids=inputs, use_cache=False).logits
    loss = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(0, 1))
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
    factor = lr_factor(step, config)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


@torch.no_grad()
def teacher_targets(teacher: Any, token_ids: torch.Tensor) -> torch.Tensor:
    """What the teacher expects next, with ``</s>`` as the end of a story.

    token_ids: int64 [batch_rows, row_tokens]
    returns: float32 [batch_rows, row_tokens, vocab_size]
    """
    probs = torch.softmax(teacher(input_ids=token_ids, use_cache=False).logits.float(), dim=-1)
    probs[..., STORY_END] += probs[..., STORY_START]
    probs[..., STORY_START] = 0
    return probs


def with_story_ends(token_ids: torch.Tensor, *, seed: int) -> torch.Tensor:
    """Write ``</s>`` for every second ``<s>`` between stories, at random.

    token_ids: int64 [batch_rows, row_tokens]
    """
    rng = torch.Generator().manual_seed(seed)
    swap = (token_ids == STORY_START) & (torch.rand(token_ids.shape, generator=rng) < 0.5)
    swap[:, 0] = False
    return token_ids.masked_fill(swap, STORY_END)


def batch_at(rows: torch.Tensor, step: int, config: StageConfig) -> torch.Tensor:
    """The rows of one step: every row once per epoch, each epoch in its own order."""
    per_epoch = len(rows) // config.batch_rows
    epoch, index = divmod(step, per_epoch)
    rng = torch.Generator().manual_seed(config.seed * 1000 + epoch)
    order = torch.randperm(len(rows), generator=rng)
    return rows[order[index * config.batch_rows : (index + 1) * config.batch_rows]]


def lr_factor(step: int, config: StageConfig) -> float:
    """Warm up, stay, fall."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    falling = config.decay_part * config.num_steps
    left = (config.num_steps - step) / falling if falling else 1.0
    return min(warm, left, 1.0)


def make_optimizers(student: Any, config: StageConfig) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for everything else."""
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in student.named_parameters():
        (matrices if parameter.ndim == 2 and "layers" in name else others).append(parameter)
    muon = torch.optim.Muon(
        matrices, lr=config.matrix_lr, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"
    )
    adamw = torch.optim.AdamW(others, lr=config.vector_lr, betas=(0.9, 0.98), weight_decay=0.0)
    optimizers: list[torch.optim.Optimizer] = [muon, adamw]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers


def save_checkpoint(
    path: Path, student: Any, optimizers: list[torch.optim.Optimizer], step: int
) -> None:
    """Write everything which the next step depends on."""
    names = {id(p): name for name, p in student.named_parameters()}
    tensors = {f"weights/{name}": tensor for name, tensor in weights_of(student).items()}
    for optimizer in optimizers:
        for parameter, state in optimizer.state.items():
            for key, value in state.items():
                tensors[f"optimizer/{names[id(parameter)]}/{key}"] = value
    save_tensors(path, tensors, {"step": str(step)})


def load_checkpoint(path: Path, student: Any, optimizers: list[torch.optim.Optimizer]) -> int:
    """Read a checkpoint back; returns the number of steps done."""
    tensors, metadata = load_tensors(path)
    load_weights(student, checkpoint_weights(tensors))
    owners = {id(p): o for o in optimizers for group in o.param_groups for p in group["params"]}
    parameters = dict(student.named_parameters())
    for name, tensor in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "optimizer":
            owner, _, key = rest.rpartition("/")
            parameter = parameters[owner]
            owners[id(parameter)].state[parameter][key] = tensor
    return int(metadata["step"])


def checkpoint_weights(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint, by their names in the model."""
    prefix = "weights/"
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
