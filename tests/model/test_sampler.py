"""The sampler: greedy, filters as transformers has them, noise that depends on (seed, position)."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from p2pnode.errors import ComputeFailed
from p2pnode.model.sampler import gumbel_noise, sample
from p2pnode.types import Sampling


def random_logits(seed: int, vocab_size: int = 200) -> torch.Tensor:
    return torch.randn(vocab_size, generator=torch.Generator().manual_seed(seed)) * 3


def chosen(logits: torch.Tensor, sampling: Sampling, draws: int) -> list[int]:
    return [sample(logits, sampling, position=n) for n in range(draws)]


def test_greedy_takes_the_lowest_id_of_the_best() -> None:
    assert sample(torch.tensor([1.0, 7.0, 7.0, 3.0]), Sampling(), position=0) == 1


def test_greedy_with_a_penalty_takes_the_lowest_id_of_the_best() -> None:
    logits = torch.tensor([8.0, 4.0, 4.0])
    penalized = Sampling(repetition_penalty=2.0)
    assert sample(logits, penalized, position=3, token_ids=[0, 0, 0]) == 0
    assert sample(logits + 0.5, penalized, position=3, token_ids=[0, 0, 0]) == 1


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0.8, seed=5)])
@pytest.mark.parametrize(
    "values",
    [[math.nan, 1.0], [1.0, math.nan], [math.inf, 1.0], [-math.inf, -math.inf]],
    ids=["nan first", "nan last", "infinite", "nothing allowed"],
)
def test_logits_that_are_not_finite_are_an_error(values: list[float], sampling: Sampling) -> None:
    with pytest.raises(ComputeFailed, match="not finite"):
        sample(torch.tensor(values), sampling, position=0)


def test_a_forbidden_token_is_never_chosen() -> None:
    logits = torch.tensor([-math.inf, 0.0, -math.inf, 0.0])
    assert set(chosen(logits, Sampling(temperature=100.0), 200)) == {1, 3}


@given(temperature=st.floats(1e-310, 100.0))
def test_any_temperature_that_is_allowed_gives_a_token(temperature: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        token = sample(random_logits(1), Sampling(temperature=temperature, top_p=0.9), position=1)
    assert 0 <= token < 200


def test_a_temperature_near_zero_is_greedy() -> None:
    logits = random_logits(3)
    assert set(chosen(logits, Sampling(temperature=1e-300), 50)) == {int(logits.argmax())}


def test_the_noise_depends_on_seed_and_position_alone() -> None:
    logits = [random_logits(n) for n in range(40)]
    sampling = Sampling(temperature=1.0, seed=11)
    forwards = [sample(row, sampling, position=n) for n, row in enumerate(logits)]
    backwards = [sample(logits[n], sampling, position=n) for n in reversed(range(40))]
    assert forwards == backwards[::-1]
    other = Sampling(temperature=1.0, seed=12)
    assert forwards != [sample(row, other, position=n) for n, row in enumerate(logits)]
    assert forwards != [sample(row, sampling, position=n + 1) for n, row in enumerate(logits)]


def test_filters_do_not_change_the_noise_of_what_they_keep() -> None:
    logits, ids = random_logits(4), np.array([3, 77, 199])
    noise = gumbel_noise(200, seed=9, position=5)
    assert np.array_equal(gumbel_noise(200, seed=9, position=5, token_ids=ids), noise[ids])
    free = Sampling(temperature=1.0, seed=9)
    for top_k in (50, 100):
        filtered = Sampling(temperature=1.0, seed=9, top_k=top_k)
        kept = set(logits.topk(top_k).indices.tolist())
        for position in range(50):
            token = sample(logits, free, position=position)
            if token in kept:
                assert sample(logits, filtered, position=position) == token


def test_a_larger_vocabulary_does_not_change_the_noise() -> None:
    small, large = (gumbel_noise(size, seed=1, position=2) for size in (101, 4_000))
    assert np.array_equal(small, large[:101])


def test_philox_is_the_published_one() -> None:
    # Random123's known answer for philox4x64-10 with counter and key 0; NumPy counts first, so the
    # counter before it is all ones.
    philox = np.random.Philox(key=0, counter=(1 << 256) - 1)
    assert [int(word) for word in philox.random_raw(4)] == [
        0x16554D9ECA36314C,
        0xDB20FE9D672D0FDC,
        0xD7E772CEE186176B,
        0x7E68B68AEC7BA23B,
    ]


def test_the_noise_of_a_release_is_the_noise_of_the_next() -> None:
    noise = gumbel_noise(6, seed=(1 << 63) - 1, position=4097)
    expected = [
        2.1088177541619326,
        0.03856531524279048,
        1.86767063556305,
        0.2102758860020201,
        -1.3182112096406042,
        1.3078854082792464,
    ]
    assert noise.tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("axis", "draws"),
    [("position", 10_000), ("seed", 10_000)],
)
def test_tokens_are_distributed_as_softmax_says(axis: str, draws: int) -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, 0.0, -1.0, 1.5, -2.0])
    counts = np.zeros(7)
    for n in range(draws):
        seed, position = (7, n) if axis == "position" else (n, 7)
        counts[sample(logits, Sampling(temperature=0.7, seed=seed), position=position)] += 1
    expected = torch.softmax(logits.double() / 0.7, 0).numpy() * draws
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert chi_square < 22.5, f"6 degrees of freedom: p < 0.001; {counts} against {expected}"


def test_noise_of_neighbours_is_not_correlated() -> None:
    rows = np.stack([gumbel_noise(2_000, seed=3, position=n) for n in range(20)])
    rows = (rows - rows.mean()) / rows.std()
    assert abs((rows[:, 1:] * rows[:, :-1]).mean()) < 0.02
    assert abs((rows[1:] * rows[:-1]).mean()) < 0.02
    other = gumbel_noise(2_000, seed=4, position=0)
    assert abs(np.corrcoef(rows[0], other)[0, 1]) < 0.1


def transformers_keeps(
    logits: torch.Tensor, sampling: Sampling, token_ids: list[int]
) -> torch.Tensor:
    """What transformers' own processors leave of the logits, in the order of `generate`."""
    steps = LogitsProcessorList()
    if sampling.needs_tokens:
        steps.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    steps.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        steps.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        steps.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        steps.append(MinPLogitsWarper(sampling.min_p))
    ids: Any = torch.tensor([token_ids])
    scores: torch.Tensor = steps(ids, logits[None])[0]
    return scores


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 1000),
    temperature=st.floats(0.2, 3.0),
    top_k=st.sampled_from([0, 1, 3, 20, 200, 1000]),
    top_p=st.sampled_from([1.0, 0.95, 0.5, 0.01]),
    min_p=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    penalty=st.sampled_from([1.0, 1.3, 0.5]),
    token_ids=st.lists(st.integers(0, 199), min_size=1, max_size=30),
)
def test_the_choice_is_that_of_the_logits_that_transformers_keeps(
    seed: int,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    penalty: float,
    token_ids: list[int],
) -> None:
    sampling = Sampling(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=penalty,
        seed=seed,
    )
    logits = random_logits(seed)
    kept = transformers_keeps(logits, sampling, token_ids).double().numpy()
    for position in range(5):
        noise = gumbel_noise(200, seed=seed, position=position)
        expected = int((kept + noise).argmax())
        assert sample(logits, sampling, position=position, token_ids=token_ids) == expected


def test_greedy_with_a_penalty_is_that_of_transformers() -> None:
    sampling = Sampling(repetition_penalty=1.7)
    for seed in range(30):
        logits, seen = random_logits(seed), list(range(seed, 200, 3))
        ids: Any = torch.tensor([seen])
        scores = RepetitionPenaltyLogitsProcessor(1.7)(ids, logits[None].clone())
        assert sample(logits, sampling, position=0, token_ids=seen) == int(scores.argmax())


def test_ids_outside_the_vocabulary_have_no_penalty_and_do_no_harm() -> None:
    sampling = Sampling(repetition_penalty=2.0)
    logits = random_logits(0)
    strange = [-1, 200, 1 << 40]
    assert sample(logits, sampling, position=3, token_ids=strange) == int(logits.argmax())


def test_the_logits_are_left_as_they_were() -> None:
    logits = random_logits(8)
    before = logits.clone()
    sample(
        logits,
        Sampling(temperature=0.5, top_k=5, top_p=0.5, repetition_penalty=3.0),
        position=4,
        token_ids=list(range(100)),
    )
    assert torch.equal(logits, before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_element_types_are_taken(dtype: torch.dtype) -> None:
    logits = torch.tensor([0.0, 40.0, 1.0], dtype=dtype)
    for sampling in (Sampling(), Sampling(temperature=0.1)):
        assert sample(logits, sampling, position=0) == 1


def test_presence_and_frequency_count_the_answer_and_not_the_prompt() -> None:
    logits = torch.tensor([9.0, 8.9, 8.0, 1.0])
    once = Sampling(presence_penalty=0.5)
    assert sample(logits, once, position=3, token_ids=[0, 0, 0], num_prompt=3) == 0
    assert sample(logits, once, position=3, token_ids=[3, 0, 0], num_prompt=1) == 1
    often = Sampling(frequency_penalty=0.5)
    assert sample(logits, often, position=4, token_ids=[3, 0, 1, 1], num_prompt=1) == 0
    assert sample(logits, often, position=6, token_ids=[3, 0, 0, 1, 1, 1], num_prompt=1) == 0
    assert sample(logits, often, position=7, token_ids=[3, 0, 0, 0, 1, 1, 1], num_prompt=1) == 2
    wanted = Sampling(presence_penalty=-2.0, frequency_penalty=-2.0)
    assert sample(logits, wanted, position=3, token_ids=[3, 3, 3], num_prompt=1) == 0
    assert sample(logits, wanted, position=4, token_ids=[0, 3, 3, 3], num_prompt=1) == 0
    assert sample(logits, wanted, position=5, token_ids=[3, 3, 3, 3, 3], num_prompt=0) == 3


def test_a_bias_makes_a_token_likely_or_rules_it_out() -> None:
    logits = random_logits(2)
    best = int(logits.argmax())
    assert sample(logits, Sampling(logit_bias=((7, 100.0),)), position=0) == 7
    assert sample(logits, Sampling(logit_bias=((best, -100.0),)), position=0) != best
    assert sample(logits, Sampling(logit_bias=((5000, 100.0),)), position=0) == best


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=2.0, top_p=0.9, seed=3)])
def test_only_what_is_allowed_is_chosen(sampling: Sampling) -> None:
    logits = random_logits(5)
    for allowed_ids in ([3], [0, 199], [17, 18, 150]):
        allowed = np.zeros(200, np.bool_)
        allowed[allowed_ids] = True
        kept = torch.full((200,), -math.inf)
        kept[allowed_ids] = logits[allowed_ids]
        for position in range(20):
            token = sample(logits, sampling, position=position, allowed=allowed)
            assert token == sample(kept, sampling, position=position)
    longer, shorter = np.ones(256, np.bool_), np.zeros(64, np.bool_)
    shorter[9] = True
    assert sample(logits, Sampling(), position=0, allowed=longer) == int(logits.argmax())
    assert sample(logits, sampling, position=0, allowed=shorter) == 9
