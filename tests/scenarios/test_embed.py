"""Embeddings: what transformers makes of a text, in every split, whoever dies."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch

from p2pnode.client.request import Prompt
from p2pnode.errors import BadRequest, ComputeFailed, NoChain, PromptTooLong
from p2pnode.lab.swarm import LocalSwarm
from p2pnode.model.mean import Mean
from tests.support.models import unsplit

TEXTS: list[Prompt] = ["Once upon a time", [1], [1, 403, 407, 261, 378, 31, 76, 99], "The end."]
LONG = [1, *(3 + number % 500 for number in range(150))]
LATENCY_S = 0.02

pytestmark = pytest.mark.virtual_time


def expected(folder: Path, token_ids: list[int]) -> list[float]:
    """The mean of the unsplit model's last hidden states."""
    with torch.inference_mode():
        model = unsplit(folder).model
        out = model(input_ids=torch.tensor([token_ids]))  # type: ignore[operator]
    mean: list[float] = out.last_hidden_state[0].double().mean(0).tolist()
    return mean


@pytest.mark.parametrize("head", ["remote", "local"])
@pytest.mark.parametrize("split", [("0-8",), ("0-2", "3-5", "6-8")], ids=len)
async def test_a_vector_is_the_mean_of_the_last_hidden_states(
    split: tuple[str, ...], head: str, tiny: Path, cache: Path
) -> None:
    config = {"prefill_chunk_tokens": 64}
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S, config=config) as swarm:
        nodes = await swarm.start(*split)
        async with swarm.client(head=head) as client:
            texts = [*TEXTS, LONG]
            made = await client.embed(texts)
            ids = [client.model.encode(text) for text in texts]
            assert await client.embed([]) == []
    assert [each.num_tokens for each in made] == [len(each) for each in ids]
    for embedding, token_ids in zip(made, ids, strict=True):
        assert embedding.vector == pytest.approx(expected(tiny, token_ids), abs=1e-5)
    assert not any(count for node in nodes for count in node.open_hops.values())


@pytest.mark.parametrize(("hop", "delay_ms"), [(0, 45), (1, 105), (2, 105), (2, 135)])
async def test_a_hop_dies_while_the_text_is_read(
    hop: int, delay_ms: int, tiny: Path, cache: Path
) -> None:
    config = {"prefill_chunk_tokens": 16}
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S, config=config) as swarm:
        nodes = await swarm.start("0-2", "3-5", "6-8")
        await swarm.start("0-8", latency_s=1.0)
        async with swarm.client() as client:
            loop = asyncio.get_running_loop()
            loop.call_later(delay_ms / 1000, swarm.kill, nodes[hop])
            (made,) = await client.embed([LONG])
    assert made.vector == pytest.approx(expected(tiny, LONG), abs=1e-5)


async def test_texts_that_cannot_be_embedded_are_refused_before_anybody_is_asked(
    tiny: Path, cache: Path
) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        (node,) = await swarm.start("0-8")
        async with swarm.client() as client:
            with pytest.raises(BadRequest, match="empty"):
                await client.embed(["good", ""])
            with pytest.raises(PromptTooLong):
                await client.embed([[5] * 257])
            assert not [event for event, _ in node.events if event == "session_opened"]
            (made,) = await client.embed([[5] * 256])
            assert made.num_tokens == 256
            swarm.kill(node)
            with pytest.raises(NoChain):
                await client.embed(["too late", "for both"])


def test_pieces_of_a_mean_must_follow_each_other() -> None:
    rows, mean = torch.arange(12.0).view(6, 2), Mean()
    mean.add(0, rows[:2])
    mean.add(2, rows[2:])
    assert mean.value().tolist() == [5.0, 6.0]
    with pytest.raises(ComputeFailed, match="cannot go on at 7"):
        mean.add(7, rows)
    mean.add(0, rows[:1])
    assert mean.value().tolist() == [0.0, 1.0]
