"""Penalties, bias, logprobs, constraints, resuming: exact in every split, whoever dies."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import torch

from p2pnode.client.client import Client
from p2pnode.client.events import Done, Token
from p2pnode.errors import NoChain
from p2pnode.lab.oracle import Oracle
from p2pnode.lab.swarm import LocalSwarm
from p2pnode.model.chooser import Chooser
from p2pnode.model.constraint import Constraints
from p2pnode.types import Chosen, Sampling
from tests.support.models import unsplit

PROMPT = [1, 403, 407, 261, 378, 31, 76, 99]
NUM_TOKENS = 16
WITHIN_TOKENS = 40
"""Of answers that end by themselves."""
END = 2
LATENCY_S = 0.01
SPLITS = (("0-8",), ("0-4", "5-8"), ("0-2", "3-5", "6-8"))
SCHEMA = {
    "type": "object",
    "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["age"],
    "additionalProperties": False,
}
PENALISED = Sampling(presence_penalty=1.5, frequency_penalty=0.7, logit_bias=((31, 3.0), (7, -9.0)))
SEEDED = Sampling(
    temperature=0.9, seed=11, presence_penalty=0.8, frequency_penalty=-0.4, num_logprobs=3
)
CONSTRAINED = Sampling(temperature=1.0, seed=0, constraint=json.dumps(SCHEMA), num_logprobs=2)
WAYS = pytest.mark.parametrize("sampling", [SEEDED, CONSTRAINED], ids=["penalties", "constraint"])

pytestmark = pytest.mark.virtual_time


@functools.lru_cache(maxsize=4096)
def logits_after(folder: Path, token_ids: tuple[int, ...]) -> torch.Tensor:
    """What the unsplit model says."""
    with torch.inference_mode():
        row: torch.Tensor = unsplit(folder)(torch.tensor([token_ids])).logits[0, -1]
    return row.float()


def penalised_greedy(folder: Path) -> list[int]:
    """The best token after penalties over the answer and bias, as OpenAI's API defines them."""
    answer: list[int] = []
    while len(answer) < NUM_TOKENS and END not in answer:
        scores = logits_after(folder, (*PROMPT, *answer)).clone()
        for token_id, count in Counter(answer).items():
            scores[token_id] -= PENALISED.presence_penalty + PENALISED.frequency_penalty * count
        for token_id, bias in PENALISED.logit_bias:
            scores[token_id] += bias
        answer.append(int(scores.argmax()))
    return answer


def most_tokens(sampling: Sampling) -> int:
    return WITHIN_TOKENS if sampling.constraint else NUM_TOKENS


async def reference(folder: Path, sampling: Sampling) -> list[Chosen]:
    """What is chosen from the logits of the unsplit model."""
    constraints = Constraints(lambda: folder)
    schema = sampling.constraint
    constraint = await constraints.compile(schema) if schema else None
    constraints.close()
    chooser = Chooser(sampling, num_prompt=len(PROMPT), constraint=constraint)
    line, made = list(PROMPT), list[Chosen]()
    while len(made) < most_tokens(sampling) and END not in line:
        row = logits_after(folder, tuple(line))
        made.append(chooser.choose(row, position=len(line), token_ids=line))
        line.append(made[-1].token_id)
    return made


async def tokens_of(
    client: Client,
    sampling: Sampling,
    at_token: Callable[[int], None] = lambda count: None,
    **options: Any,
) -> tuple[list[Token], Done]:
    """Generate; tells ``at_token`` how many new tokens there are."""
    made: list[Token] = []
    done: Done | None = None
    options = {"max_tokens": most_tokens(sampling), **options}
    async with aclosing(client.stream(PROMPT, sampling=sampling, **options)) as events:
        async for event in events:
            if isinstance(event, Token):
                made.append(event)
                at_token(len(made))
            elif isinstance(event, Done):
                done = event
    assert done is not None
    return made, done


def ids(made: Sequence[Token] | Sequence[Chosen]) -> list[int]:
    return [token.token_id for token in made]


def check(made: Sequence[Token], expected: Sequence[Chosen]) -> None:
    """The same tokens, and the same was thought of them."""
    assert ids(made) == ids(expected)
    for token, chosen in zip(made, expected, strict=True):
        assert token.logprob == pytest.approx(chosen.logprob, abs=1e-4)
        tops = [(top.token_id, top.logprob) for top in token.top_logprobs]
        assert [top for top, _ in tops] == [top for top, _ in chosen.top]
        assert [p for _, p in tops] == pytest.approx([p for _, p in chosen.top], abs=1e-4)


@pytest.mark.parametrize(
    ("head", "split"),
    [("remote", SPLITS[0]), ("remote", SPLITS[2]), ("local", SPLITS[1])],
    ids=["whole", "three", "local head"],
)
async def test_every_split_chooses_what_the_unsplit_model_says(
    head: str, split: tuple[str, ...], tiny: Path, cache: Path
) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        await swarm.start(*split)
        async with swarm.client(head=head) as client:
            made, _ = await tokens_of(client, PENALISED)
            seeded, _ = await tokens_of(client, SEEDED)
            constrained, done = await tokens_of(client, CONSTRAINED)
    assert ids(made) == penalised_greedy(tiny)
    assert (made[0].logprob, made[0].top_logprobs) == (None, ())
    check(seeded, await reference(tiny, SEEDED))
    check(constrained, await reference(tiny, CONSTRAINED))
    assert done.finish_reason == "stop"
    assert set(json.loads(done.text)) == {"age"}


async def test_logprobs_are_those_of_the_models_own_distribution(tiny: Path) -> None:
    line = list(PROMPT)
    for chosen in await reference(tiny, CONSTRAINED):
        expected = logits_after(tiny, tuple(line)).double().log_softmax(0)
        assert chosen.logprob == pytest.approx(float(expected[chosen.token_id]), abs=1e-4)
        assert [each for each, _ in chosen.top] == expected.topk(2).indices.tolist()
        line.append(chosen.token_id)


@WAYS
@pytest.mark.parametrize(
    ("hop", "dies_at", "standbys"),
    [(2, 1, True), (2, 4, False), (2, 9, True), (0, 9, False)],
)
async def test_a_hop_dies(
    hop: int, dies_at: int, standbys: bool, sampling: Sampling, tiny: Path, cache: Path
) -> None:
    config = {"standbys": standbys}
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S, config=config) as swarm:
        nodes = await swarm.start("0-2", "3-5", "6-8")
        await swarm.start("0-2", "3-5", "6-8", latency_s=0.5)
        async with swarm.client() as client:
            made, done = await tokens_of(
                client, sampling, lambda count: swarm.kill(nodes[hop]) if count == dies_at else None
            )
    check(made, await reference(tiny, sampling))
    assert done.failovers


@WAYS
async def test_guesses_change_nothing(sampling: Sampling, tiny: Path, cache: Path) -> None:
    expected = await reference(tiny, sampling)
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        nodes = await swarm.start("0-2", "3-5", "6-8")
        await swarm.start("6-8", latency_s=0.5)
        oracle = Oracle([*PROMPT, *ids(expected)], 0.6)
        async with swarm.client() as client:
            made, _ = await tokens_of(client, sampling, drafter=oracle)
            check(made, expected)
            made, _ = await tokens_of(
                client,
                sampling,
                lambda count: swarm.kill(nodes[2]) if count == 7 else None,
                drafter=oracle,
            )
    check(made, expected)
    assert oracle.num_asked


@WAYS
async def test_an_answer_goes_on_as_if_it_had_never_been_cut(
    sampling: Sampling, tiny: Path, cache: Path
) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        await swarm.start("0-4", "5-8")
        async with swarm.client() as client:
            all_made, all_done = await tokens_of(client, sampling)
            for at in (1, 5, len(all_made) - 1, len(all_made)):
                made, done = await tokens_of(client, sampling, resume_from=ids(all_made[:at]))
                assert ids(made) == ids(all_made[at:])
                assert [each.position for each in made] == [each.position for each in all_made[at:]]
                assert "".join(each.text for each in all_made[:at] + made) in done.text
                assert (done.text, done.token_ids) == (all_done.text, all_done.token_ids)
                assert done.finish_reason == all_done.finish_reason
                assert done.prompt_tokens == len(PROMPT)


async def test_what_an_error_hands_over_is_where_to_go_on(tiny: Path, cache: Path) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        nodes = await swarm.start("0-4", "5-8")
        async with swarm.client() as client:
            with pytest.raises(NoChain) as caught:
                await tokens_of(
                    client, SEEDED, lambda count: swarm.kill(nodes[1]) if count == 6 else None
                )
            await swarm.start("5-8")
            made, done = await tokens_of(client, SEEDED, resume_from=caught.value.token_ids)
    expected = await reference(tiny, SEEDED)
    assert len(caught.value.token_ids) == 6
    check(made, expected[6:])
    assert list(done.token_ids) == ids(expected)
    assert done.text.startswith(caught.value.text)


async def test_a_stop_string_that_began_before_the_cut_is_found(tiny: Path, cache: Path) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        await swarm.start("0-8")
        async with swarm.client() as client:
            made, done = await tokens_of(client, SEEDED)
            stop = done.text[5:9]
            whole, whole_done = await tokens_of(client, SEEDED, stop=[stop])
            at = len(whole) - 1
            rest, rest_done = await tokens_of(
                client, SEEDED, stop=[stop], resume_from=ids(made[:at])
            )
    assert (len(rest), rest_done.finish_reason) == (1, "stop")
    assert rest_done.text == whole_done.text == done.text[: done.text.index(stop)]
