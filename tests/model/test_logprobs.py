"""What is told of the choice: likelihoods, which change nothing."""

from __future__ import annotations

import math

import pytest
import torch

from p2pnode.model.chooser import Chooser
from p2pnode.model.sampler import LEAST_LOGPROB, sample, with_logprobs
from p2pnode.types import Sampling


def random_logits(seed: int, vocab_size: int = 200) -> torch.Tensor:
    return torch.randn(vocab_size, generator=torch.Generator().manual_seed(seed)) * 3


def test_the_same_distribution_whatever_is_told_of_it() -> None:
    logits = random_logits(6)
    quiet = Sampling(temperature=0.8, seed=2)
    told = Sampling(temperature=0.8, seed=2, num_logprobs=5)
    chooser = Chooser(told, num_prompt=0)
    for position in range(50):
        chosen = chooser.choose(logits, position=position)
        assert chosen.token_id == sample(logits, quiet, position=position)
        assert len(chosen.top) == 5


def test_logprobs_are_of_the_logits_as_they_are() -> None:
    logits = torch.tensor([1.0, 3.0, 3.0, -math.inf, 2.0])
    expected = logits.log_softmax(0).tolist()
    chosen = with_logprobs(logits, 4, 3)
    assert chosen.logprob == pytest.approx(expected[4], abs=1e-6)
    assert [token_id for token_id, _ in chosen.top] == [1, 2, 4]
    assert with_logprobs(logits, 1, 0).top == ()
    everything = with_logprobs(logits, 1, 20).top
    assert [token_id for token_id, _ in everything] == [1, 2, 4, 0, 3]
    assert everything[-1][1] == LEAST_LOGPROB
