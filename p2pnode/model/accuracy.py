"""What it does to a model's answers when hidden states between hops, or weights, are changed.

The model runs twice over a text, hop by hop so that only one hop's weights are in memory: as it is,
and with every hidden state that would travel changed as a lossy coding changes it, or with
quantised weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch

from p2pnode.errors import BadRequest
from p2pnode.model.block import Block, Work
from p2pnode.model.tensor import from_torch, to_torch
from p2pnode.model.text import TextCodec
from p2pnode.types import LayerRange, ModelSpec, Tensor

MAX_TOKENS = 512
MIN_TOKENS = 64
NUM_PARTS = 4
"""In which a model is loaded when its quantised weights are compared."""

TEXT = """\
Once upon a time there was a little girl who lived near a river with her mother and a gray cat.
Every morning she carried two pieces of bread to the old bridge and waited for the ducks. One day
the ducks did not come. The girl looked under the bridge, behind the tall grass and along the road
to the mill, but she found only a broken basket and a red ribbon. "Somebody has lost this," she
said, and she ran home to ask her mother what to do. Her mother smiled. "We will go to the market
tomorrow and ask everybody whether the ribbon is theirs," she said. At the market a tall man sold
apples, a baker sold warm cakes, and a boy with a small drum played for the people who walked by.
Nobody knew the ribbon. Then the boy stopped and cried: "It belongs to my sister! She wanted to
catch a duck for our pond, and the wind took her basket into the water." So they went to the pond
together, and there were all the ducks, swimming in a circle as if nothing had happened. The girl
gave the ribbon back, the boy gave her his drum for a day, and the baker, who had followed them,
gave everybody a cake. When the sun went down they walked home slowly, tired and happy, and the cat
was waiting at the door because it was very hungry and did not like to be alone in the dark.
"""
"""What the comparison runs over when the caller has nothing better."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How near the changed model's answers are, over all positions of the text."""

    num_tokens: int
    num_hops: int
    top1_agreement: float
    """Share of positions with the same best token."""
    mean_kl: float
    """Kullback-Leibler divergence of the changed distribution from the plain one, in nats."""
    max_delta_logit: float
    logit_deviation: float
    """Standard deviation of the plain logits: the measure for ``max_delta_logit``."""


def accuracy(
    folder: Path,
    spec: ModelSpec,
    *,
    dtype: str,
    num_hops: int,
    change: Callable[[Tensor], Tensor],
    text: str = TEXT,
) -> Accuracy:
    """Compare; blocks while it loads and computes the model twice.

    change: what becomes of hidden states [tokens, hidden_size] between two hops
    Raises BadRequest for a model of one layer and for a text that is too short, ModelFilesError.
    """
    num_hops = min(num_hops, spec.num_layers)
    if num_hops < 2:
        raise BadRequest(f"{spec.name} has one layer: nothing travels between hops")
    plain = changed = _token_ids(folder, spec, text)
    for layers in _cut(spec, num_hops):
        block = Block.load(folder, spec, layers, device="cpu", dtype=dtype)
        if layers.start:
            changed = to_torch(change(from_torch(changed)))
        plain, changed = _forward(block, plain), _forward(block, changed)
    return _compared(block.logits(plain).float(), block.logits(changed).float(), num_hops)


def accuracy_quantised(
    folder: Path, spec: ModelSpec, *, dtype: str, quant: str, text: str = TEXT
) -> Accuracy:
    """Compare with quantised weights; blocks while it loads and computes the model twice.

    quant: how weights are quantised, one of `numerics.QUANTS`
    Raises BadRequest for a text that is too short, ModelFilesError, ModelUnsupported, and
    LocalError without the library that quantises.
    """
    parts = _cut(spec, min(NUM_PARTS, spec.num_layers))
    plain = quantised = _token_ids(folder, spec, text)
    for layers in parts:
        block = Block.load(folder, spec, layers, device="cpu", dtype=dtype)
        plain = _forward(block, plain)
        block = Block.load(folder, spec, layers, device="cpu", dtype=dtype, quant=quant)
        quantised = _forward(block, quantised)
    # Norm and head are never quantised, so this block's are those of both.
    return _compared(block.logits(plain).float(), block.logits(quantised).float(), len(parts))


def _token_ids(folder: Path, spec: ModelSpec, text: str) -> torch.Tensor:
    """The text's beginning, [tokens]; raises BadRequest when it is too short."""
    token_ids = TextCodec.load(folder).encode(text)[: min(MAX_TOKENS, spec.max_positions)]
    if len(token_ids) < MIN_TOKENS:
        raise BadRequest(f"a text of {len(token_ids)} tokens says little; {MIN_TOKENS} or more do")
    return torch.tensor(token_ids)


def _cut(spec: ModelSpec, num_parts: int) -> list[LayerRange]:
    """All layers in so many parts, as even as they go."""
    edges = [index * spec.num_layers // num_parts for index in range(num_parts + 1)]
    return [LayerRange(start, stop) for start, stop in pairwise(edges)]


def _forward(block: Block, entry: torch.Tensor) -> torch.Tensor:
    work = Work(cache=block.new_cache(len(entry)), position=0, entry=entry)
    with torch.inference_mode():
        return block.forward([work])[0]


def _compared(plain: torch.Tensor, changed: torch.Tensor, num_hops: int) -> Accuracy:
    """plain, changed: logits [tokens, vocab_size]"""
    log_p, log_q = plain.log_softmax(-1), changed.log_softmax(-1)
    same = plain.argmax(-1) == changed.argmax(-1)
    return Accuracy(
        num_tokens=len(plain),
        num_hops=num_hops,
        top1_agreement=float(same.float().mean()),
        mean_kl=float((log_p.exp() * (log_p - log_q)).sum(-1).mean()),
        max_delta_logit=float((plain - changed).abs().max()),
        logit_deviation=float(plain.std()),
    )
