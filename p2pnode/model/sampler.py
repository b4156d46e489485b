"""Chooses the next token from logits: the same one on every chain, in every batch, after any fault.

The noise is counter-based. Philox with the key ``seed`` and the counter ``(token_id, position)``
gives each token of the vocabulary its own number, so a choice depends on nothing but the seed, the
position and the logits: not on what was sampled before, on which machine, or on what the filters
left over. The choice itself is Gumbel-max, ``argmax(logits / temperature + noise)``, in float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from p2pnode.errors import ComputeFailed
from p2pnode.types import Chosen, Sampling

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Allowed = npt.NDArray[np.bool_]

WORDS_PER_COUNT = 4
"""Philox gives four 64-bit words for each value of its counter."""
LEAST_LOGPROB = -9999.0
"""Stands for what the model holds impossible: minus infinity is no number in JSON."""


def sample(
    logits: torch.Tensor,
    sampling: Sampling,
    *,
    position: int,
    token_ids: Sequence[int] = (),
    num_prompt: int | None = None,
    allowed: Allowed | None = None,
) -> int:
    """Choose the token at ``position``, its index in prompt + answer.

    logits: [vocab_size], floating point, any device; computed in float32 or better
    token_ids: prompt and answer so far, for the penalties; ids outside the vocabulary have no logit
        and are passed over
    num_prompt: how many of them are the prompt; by default all
    allowed: [up to vocab_size] bool, what a constraint leaves; None: everything
    returns: a token id; of equally good ones the lowest

    The order is transformers' where it has these: repetition penalty, presence and frequency
    penalty, bias, constraint, temperature, top_k, top_p, min_p. Differs from it in ties at the edge
    of a filter, which go to the lowest ids there and are undefined here.
    Raises ComputeFailed when the best logit is not a finite number, or any is not a number.
    """
    if sampling.is_greedy and sampling.is_plain and allowed is None:
        best, token_id = logits.max(dim=0)  # the first of equals; not a number wins
        _check_finite(float(best))
        return int(token_id)
    scores = logits.detach().to("cpu", torch.float32).numpy()
    _check_finite(float(scores.max()))
    if not sampling.is_plain or allowed is not None:
        scores = _adjusted(scores, sampling, token_ids, num_prompt, allowed)
    best_score = float(scores.max())
    _check_finite(best_score)
    if sampling.is_greedy:
        return int(scores.argmax())
    with np.errstate(over="ignore"):  # a temperature near 0 leaves the best: 0, others: -inf
        scaled = (scores.astype(np.float64) - best_score) / sampling.temperature
    kept, scaled = _keep(scaled, sampling)
    noise = gumbel_noise(len(scores), seed=sampling.seed, position=position, token_ids=kept)
    return int(kept[(scaled + noise).argmax()])


def with_logprobs(logits: torch.Tensor, token_id: int, num: int) -> Chosen:
    """What the model thought of a token, and its ``num`` most likely ones (see `Chosen`).

    logits: [vocab_size], as the model made them
    """
    row = torch.log_softmax(logits.detach().float(), dim=0).cpu().numpy().clip(LEAST_LOGPROB, 0.0)
    num = min(num, len(row))
    top: Ids = np.empty(0, np.int64)
    if num:
        near = np.flatnonzero(row >= np.partition(row, -num)[-num])
        top = near[np.argsort(-row[near], kind="stable")][:num]
    return Chosen(token_id, float(row[token_id]), tuple((int(i), float(row[i])) for i in top))


def gumbel_noise(
    vocab_size: int, *, seed: int, position: int, token_ids: Ids | None = None
) -> Floats:
    """The noise of some tokens (of all, where none are named) at one position.

    returns: [number of token_ids] float64, independent, standard Gumbel
    """
    philox = np.random.Philox(key=seed, counter=position << 64)
    count = -(-vocab_size // WORDS_PER_COUNT) * WORDS_PER_COUNT
    words = philox.random_raw(count)
    words = words[:vocab_size] if token_ids is None else words[token_ids]
    # 52 bits and a half: never 0, never 1, so both logarithms are finite.
    uniform = ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    noise: Floats = -np.log(-np.log(uniform))
    return noise


def _check_finite(best: float) -> None:
    if not np.isfinite(best):
        raise ComputeFailed(f"the logits are not finite: the best of them is {best}")


def _adjusted(
    scores: Scores,
    sampling: Sampling,
    token_ids: Sequence[int],
    num_prompt: int | None,
    allowed: Allowed | None,
) -> Scores:
    """Penalties, bias, constraint; scores: [vocab_size]."""
    scores = scores.copy()
    known = np.asarray(token_ids, dtype=np.int64)
    answer = known[len(known) if num_prompt is None else num_prompt :]
    with np.errstate(over="ignore"):  # an infinite result is noticed by the caller
        if sampling.repetition_penalty != 1.0:
            _divide(scores, sampling.repetition_penalty, known)
        if sampling.penalizes_answer:
            seen, counts = np.unique(_inside(answer, len(scores)), return_counts=True)
            scores[seen] -= np.float32(sampling.frequency_penalty) * counts.astype(np.float32)
            scores[seen] -= np.float32(sampling.presence_penalty)
        for token_id, bias in sampling.logit_bias:
            if token_id < len(scores):
                scores[token_id] += np.float32(bias)
    if allowed is not None:
        scores[: len(allowed)][~allowed[: len(scores)]] = -np.inf
        scores[len(allowed) :] = -np.inf
    return scores


def _inside(token_ids: Ids, vocab_size: int) -> Ids:
    inside: Ids = token_ids[(token_ids >= 0) & (token_ids < vocab_size)]
    return inside


def _divide(scores: Scores, penalty: float, token_ids: Ids) -> None:
    """Divide positive logits of tokens seen, multiply negative ones: once each, however often."""
    seen = np.unique(_inside(token_ids, len(scores)))
    old, factor = scores[seen], np.float32(penalty)
    scores[seen] = np.where(old < 0, old * factor, old / factor)


def _keep(scaled: Floats, sampling: Sampling) -> tuple[Ids, Floats]:
    """Apply the filters: the ids that may be chosen, ascending, and their scores.

    scaled: [vocab_size], the best is 0
    """
    kept: Ids = np.flatnonzero(scaled > -np.inf)
    if 0 < sampling.top_k < len(kept):
        kept = _best(kept, scaled, sampling.top_k)
    if sampling.top_p < 1.0:
        kept = _nucleus(kept, scaled, sampling.top_p)
    if sampling.min_p > 0.0:
        # exp(scaled) is p / p_best: what was filtered before does not matter.
        kept = kept[np.exp(scaled[kept]) >= sampling.min_p]
    return kept, scaled[kept]


def _best(kept: Ids, scaled: Floats, num_best: int) -> Ids:
    """The ``num_best`` best, and those equal to the last of them (as transformers does)."""
    threshold = np.partition(scaled[kept], -num_best)[-num_best]
    best: Ids = kept[scaled[kept] >= threshold]
    return best


def _nucleus(kept: Ids, scaled: Floats, top_p: float) -> Ids:
    """The fewest most likely tokens whose probabilities add up to ``top_p``; at least one."""
    odds = np.exp(scaled[kept])
    odds /= odds.sum()
    # Tokens rarer than (1 - top_p) / n are together rarer than 1 - top_p, so none of them can be
    # in the nucleus; sorting only the others makes a large vocabulary cheap.
    likely = np.flatnonzero(odds >= (1.0 - top_p) / len(odds))
    order = likely[np.argsort(-odds[likely], kind="stable")]
    before = np.cumsum(odds[order]) - odds[order]
    chosen = order[(before < top_p) | (np.arange(len(order)) == 0)]
    return np.sort(kept[chosen])
