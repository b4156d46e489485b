"""Chooses the tokens of one session: the same ones on the last hop, on a client, and in a draft."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from p2pnode.model.constraint import Constraint
from p2pnode.model.sampler import sample, with_logprobs
from p2pnode.types import Chosen, Sampling


class Chooser:
    """What `sample` needs besides logits and tokens. Used by one thread at a time."""

    def __init__(
        self, sampling: Sampling, *, num_prompt: int, constraint: Constraint | None = None
    ) -> None:
        """num_prompt: where the answer begins; constraint: that of ``sampling``, a fresh one"""
        self.sampling = sampling
        self._num_prompt = num_prompt
        self._constraint = constraint

    def choose(
        self, logits: torch.Tensor, *, position: int, token_ids: Sequence[int] = ()
    ) -> Chosen:
        """The token at ``position``.

        logits: [vocab_size]; token_ids: all before it, where ``sampling`` needs them
        Raises ComputeFailed.
        """
        sampling, allowed = self.sampling, None
        if self._constraint is not None:
            allowed = self._constraint.allowed(token_ids[self._num_prompt :])
        token_id = sample(
            logits,
            sampling,
            position=position,
            token_ids=token_ids,
            num_prompt=self._num_prompt,
            allowed=allowed,
        )
        if sampling.num_logprobs is None:
            return Chosen(token_id)
        return with_logprobs(logits, token_id, sampling.num_logprobs)
