"""What the last hop makes of its rows for its clients: tokens, their mean, or the rows themselves.

Runs on the compute thread.
"""

from __future__ import annotations

from collections.abc import Sequence

from p2pnode.errors import ComputeFailed
from p2pnode.model.block import Work
from p2pnode.model.chooser import Chooser
from p2pnode.model.tensor import TorchTensor, from_torch, is_finite
from p2pnode.serving.job import Job, Output

Outcome = Output | ComputeFailed


def endings(batch: Sequence[Job], work: Sequence[Work], outs: list[TorchTensor]) -> list[Outcome]:
    """The outputs of [tokens, hidden_size] of each job: only what somebody waits for.

    Raises ComputeFailed when one of them cannot be; each job may then be run again by itself.
    """
    block = batch[0].session.block
    wanted = {
        index: hidden[job.send_from - job.position :]
        for index, (job, hidden) in enumerate(zip(batch, outs, strict=True))
        if job.send_from - job.position < len(hidden) and work[index].is_finite
    }
    sampled = [index for index in wanted if batch[index].session.chooser is not None]
    logits = block.logits_of([wanted[index] for index in sampled])
    rows_of = dict(zip(sampled, logits, strict=True))
    outcomes: list[Outcome] = []
    for index, (job, part) in enumerate(zip(batch, work, strict=True)):
        start, chooser, mean = job.send_from, job.session.chooser, job.session.mean
        if not part.is_finite:
            outcomes.append(not_finite(job, part))
        elif mean is not None:
            mean.add(job.position, block.normed(outs[index]))
            outcomes.append(Output(start, from_torch(mean.value()) if index in wanted else None))
        elif chooser is not None and index in rows_of:
            outcomes.append(_chosen(chooser, job.session.token_ids, start, rows_of[index]))
        else:
            outcomes.append(Output(start, from_torch(wanted[index]) if index in wanted else None))
    return outcomes


def not_finite(job: Job, part: Work) -> ComputeFailed:
    """Values that are no numbers, and whether they were so when they came."""
    whose = "input" if not is_finite(part.entry) else "output"
    return ComputeFailed(f"{whose} of layers {job.session.layers} is not finite", whose)


def _chosen(chooser: Chooser, token_ids: list[int], start: int, logits: TorchTensor) -> Output:
    """The tokens after those at ``start`` and on; logits: [tokens, vocab_size].

    token_ids: those so far, where they are needed; what is chosen is noted there
    """
    made = []
    for position, row in enumerate(logits, start=start + 1):
        chosen = chooser.choose(row, position=position, token_ids=token_ids[:position])
        if chooser.sampling.needs_tokens:
            token_ids[position:] = [chosen.token_id]
        made.append(chosen)
    return Output(start, chosen=tuple(made))
