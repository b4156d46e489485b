"""What a model's parts weigh and the sums made of it: weights + KV + activations. Pure.

The one place where these bytes are added up. `model.memory` reads the figures off a config; a node
sums before it loads and after (`node.loading`, `node.figures`), admission counts sessions by it,
and `plan` does the same for machines that are not here.

- **weights** of layers ``a, ..., b - 1``: exactly what `Block` holds after loading. The first block
  has the embedding besides, the last one norm and head; a tied matrix is held by both, and once by
  a block that is first and last.
- **KV** of a token: keys and values of these layers in the compute dtype. Sliding windows are kept
  whole: a session can be cut back to any position.
- **sessions**: for each token that they may come to hold its KV and two rows of hidden states, one
  that waits to be computed and one of the journal. They may fill `MEMORY_SHARE` of what weights and
  activations leave; the rest is for allocators and for others.
- **activations** of a step of n tokens: n times 6 hidden states and 8 of the widest rows that a
  layer makes (gate, up, activated, product, and what an allocator keeps of the layer before: as
  `p2pnode bench plan` measures it), and for the last block two rows of logits in float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from p2pnode.types import LayerRange

MEMORY_SHARE = 0.8
"""The part of what is free after loading that sessions may fill."""
HIDDEN_ROWS = 6
"""Hidden states of one token that are there at once."""
WIDE_ROWS = 8
"""The same of the widest rows."""
LOGITS_BYTES = 4
WAITING_ROWS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PartSizes:
    """One layer, or an end of the model."""

    weights_bytes: int
    num_weights: int
    expert_bytes: int = 0
    """Of ``weights_bytes``: experts, of which a token reads a few only."""
    num_expert_weights: int = 0
    kv_bytes_per_token: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSizes:
    """A model in one dtype and quantisation."""

    layers: tuple[PartSizes, ...]
    embedding: PartSizes
    head: PartSizes
    """Final norm and head."""
    tied_bytes: int
    """Of embedding and head: what a block that has both holds once."""
    hidden_size: int
    vocab_size: int
    max_positions: int
    dtype_bytes: int
    widest: int
    """Elements of the widest row that a layer makes for one token."""
    expert_share: float = 1.0
    """Of a layer's experts, how many one token reads."""

    @property
    def whole(self) -> LayerRange:
        """All layers."""
        return LayerRange(0, len(self.layers))

    @property
    def row_bytes(self) -> int:
        """The hidden state of one token."""
        return self.hidden_size * self.dtype_bytes

    def parts(self, layers: LayerRange, *, ends: bool = True) -> Sequence[PartSizes]:
        """What a block of these layers holds; no layers at all, with ends, is both ends."""
        embeds, has_head = owned_ends(len(self.layers), layers, ends=ends)
        held = self.layers[layers.start : layers.stop]
        return (*(self.embedding,) * embeds, *held, *(self.head,) * has_head)

    def weights_bytes(self, layers: LayerRange, *, ends: bool = True) -> int:
        """Equals `Block.num_bytes` after loading."""
        total = sum(part.weights_bytes for part in self.parts(layers, ends=ends))
        has_both = all(owned_ends(len(self.layers), layers, ends=ends))
        return total - (self.tied_bytes if has_both else 0)

    def kv_bytes_per_token(self, layers: LayerRange) -> int:
        """Equals `Block.kv_bytes_per_token` after loading."""
        return sum(part.kv_bytes_per_token for part in self.layers[layers.start : layers.stop])

    def activation_bytes(self, layers: LayerRange, num_tokens: int) -> int:
        """While a step of so many tokens is computed."""
        wide = WIDE_ROWS * self.widest * self.dtype_bytes
        has_head = owned_ends(len(self.layers), layers, ends=True)[1]
        logits = 2 * LOGITS_BYTES * self.vocab_size if has_head else 0
        return num_tokens * (HIDDEN_ROWS * self.row_bytes + wide) + logits

    def needed(self, layers: LayerRange, *, session_tokens: int, step_tokens: int) -> Needed:
        """What a node needs that serves these layers to sessions of so many tokens together."""
        kv_bytes = self.kv_bytes_per_token(layers)
        return Needed(
            weights_bytes=self.weights_bytes(layers),
            sessions_bytes=session_tokens * session_bytes_per_token(kv_bytes, self.row_bytes),
            activation_bytes=self.activation_bytes(layers, step_tokens),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed:
    """The memory of one node."""

    weights_bytes: int
    sessions_bytes: int
    activation_bytes: int

    @property
    def used_bytes(self) -> int:
        """What is in use when all sessions are full and a step is computed."""
        return self.weights_bytes + self.sessions_bytes + self.activation_bytes

    @property
    def total_bytes(self) -> int:
        """The same with what is left free beside sessions: with so much memory it fits."""
        return self.used_bytes + math.ceil(self.sessions_bytes * (1 / MEMORY_SHARE - 1))


def owned_ends(num_layers: int, layers: LayerRange, *, ends: bool) -> tuple[bool, bool]:
    """Whether a block of these layers holds (the embedding, norm and head).

    No layers at all, with ends, is the client's part for a local head: it holds both.
    """
    is_first = layers.start == 0
    is_last = layers.stop == num_layers or not layers
    return ends and is_first, ends and is_last


def session_bytes_per_token(kv_bytes: int, row_bytes: int) -> int:
    """KV, plus a row that waits to be computed, plus a row of the journal."""
    return kv_bytes + WAITING_ROWS * row_bytes


def capacity_tokens(free_bytes: int, activation_bytes: int, bytes_per_token: int) -> int:
    """Tokens that sessions may hold together in what is free after loading."""
    return int(max(0, free_bytes - activation_bytes) * MEMORY_SHARE) // bytes_per_token
