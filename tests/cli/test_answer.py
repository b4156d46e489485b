"""`generate` over a swarm in this process: the events of scripts, the text of people."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from p2pnode.cli.answer import generate_once
from p2pnode.cli.exits import Failed
from p2pnode.cli.output import Output
from p2pnode.errors import NoChain, PromptTooLong
from p2pnode.lab.swarm import LabNode, LocalSwarm
from p2pnode.types import Sampling

pytestmark = pytest.mark.virtual_time

PROMPT = "Once upon a time"
OPTIONS: dict[str, Any] = {"max_tokens": 8, "stop": ()}


class WatchedOutput(Output):
    """Tells a test of each token before it is shown."""

    def __init__(self, at_token: Callable[[int], object]) -> None:
        super().__init__(as_json=True)
        object.__setattr__(self, "counts", iter(range(1, 1000)))
        object.__setattr__(self, "at_token", at_token)

    def event(self, event: str, **fields: Any) -> None:
        super().event(event, **fields)
        if event == "token":
            self.at_token(next(self.counts))  # type: ignore[attr-defined]


@asynccontextmanager
async def three_nodes(tiny: Path, cache: Path) -> AsyncIterator[LocalSwarm]:
    async with LocalSwarm(tiny, cache=cache, latency_s=0.01) as swarm:
        await swarm.start("0-2", "3-5", "6-8")
        yield swarm


def has_closed(node: LabNode) -> bool:
    """Whether the node has freed the one session that it had."""
    return [name for name, _ in node.events if "session" in name] == [
        "session_opened",
        "session_closed",
    ]


def events_of(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


async def test_scripts_get_the_chain_each_token_and_done(
    tiny: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with three_nodes(tiny, cache) as swarm:
        await generate_once(swarm.client(), PROMPT, OPTIONS, Output(as_json=True))
        peers = [node.peer for node in swarm.nodes]
    chain, *tokens, done = events_of(capsys)
    hops = [{"peer": p, "layers": x} for p, x in zip(peers, ("0-2", "3-5", "6-8"), strict=True)]
    assert chain == {"event": "chain", "chain": hops}
    assert [set(token) for token in tokens] == [{"event", "position", "token_id", "text"}] * 8
    assert set(done) == {
        "event",
        "text",
        "token_ids",
        "prompt_tokens",
        "finish_reason",
        "chain",
        "failovers",
        "ttft_s",
        "tokens_per_s",
    }
    assert done["event"] == "done"
    assert done["finish_reason"] == "length"
    assert done["chain"] == hops
    assert done["token_ids"] == [token["token_id"] for token in tokens]
    assert tokens[0]["position"] == done["prompt_tokens"]
    assert done["text"].startswith("".join(token["text"] for token in tokens))


async def test_scripts_get_logprobs_where_they_ask_for_them(
    tiny: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {**OPTIONS, "sampling": Sampling(num_logprobs=2)}
    async with three_nodes(tiny, cache) as swarm:
        await generate_once(swarm.client(), PROMPT, options, Output(as_json=True))
    _, *tokens, _ = events_of(capsys)
    for token in tokens:
        best, second = token["top_logprobs"]
        assert set(best) == {"token_id", "text", "logprob"}
        assert (best["token_id"], best["logprob"]) == (token["token_id"], token["logprob"])
        assert 0 >= best["logprob"] >= second["logprob"]


async def test_people_get_the_text_and_a_newline(
    tiny: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with three_nodes(tiny, cache) as swarm:
        await generate_once(swarm.client(), PROMPT, OPTIONS, Output())
        async with swarm.client() as client:
            done = await client.generate(PROMPT, **OPTIONS)
    captured = capsys.readouterr()
    assert captured.out == done.text + "\n"
    assert captured.err == ""


async def test_a_failover_shows_the_chain_again(
    tiny: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with three_nodes(tiny, cache) as swarm:
        (spare,) = await swarm.start("3-5", latency_s=1.0)
        output = WatchedOutput(lambda count: swarm.kill(swarm.nodes[1]) if count == 3 else None)
        await generate_once(swarm.client(), PROMPT, OPTIONS, output)
    events = events_of(capsys)
    chains = [event["chain"] for event in events if event["event"] == "chain"]
    assert [chain[1]["peer"] for chain in chains] == [swarm.nodes[1].peer, spare.peer]
    assert events[-1]["failovers"] == 1
    assert len(events[-1]["token_ids"]) == 8


async def test_a_cancelled_answer_is_done_and_frees_its_chain(
    tiny: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with three_nodes(tiny, cache) as swarm:
        async with asyncio.TaskGroup() as tasks:
            output = WatchedOutput(lambda count: task.cancel() if count == 3 else None)
            task = tasks.create_task(generate_once(swarm.client(), PROMPT, OPTIONS, output))
            await asyncio.wait([task])
        await asyncio.sleep(0.1)  # virtual: what was sent has arrived
        assert all(has_closed(node) for node in swarm.nodes)
    done = events_of(capsys)[-1]
    assert done["event"] == "done"
    assert done["finish_reason"] == "cancelled"
    assert len(done["token_ids"]) == 3


async def test_layers_without_a_peer_fail_with_the_text_so_far(
    tiny: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with three_nodes(tiny, cache) as swarm:
        output = WatchedOutput(lambda count: swarm.kill(swarm.nodes[1]) if count == 4 else None)
        with pytest.raises(Failed) as caught:
            await generate_once(swarm.client(), PROMPT, OPTIONS, output)
    tokens = [event for event in events_of(capsys) if event["event"] == "token"]
    assert isinstance(caught.value.error, NoChain)
    assert caught.value.fields["layers"] == "3-5"
    assert caught.value.fields["token_ids"] == [token["token_id"] for token in tokens]
    assert caught.value.fields["text"].startswith("".join(token["text"] for token in tokens))


async def test_a_prompt_that_is_too_long_is_an_error_without_text(tiny: Path, cache: Path) -> None:
    async with three_nodes(tiny, cache) as swarm:
        with pytest.raises(Failed) as caught:
            await generate_once(swarm.client(), "word " * 500, OPTIONS, Output(as_json=True))
    assert isinstance(caught.value.error, PromptTooLong)
    assert caught.value.fields == {"layers": None, "text": "", "token_ids": []}
