"""What happens to an answer when its peers, or its reader, go away in the middle."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from p2pnode.lab.swarm import LabNode
from tests.gateway.caller import calling
from tests.gateway.swarms import Asked, gateway_on, until

PROMPT = [1, 403, 407, 261, 378, 31, 76, 99]

pytestmark = pytest.mark.virtual_time


def ask(asked: Asked, **more: Any) -> dict[str, Any]:
    greedy = {"prompt": PROMPT, "temperature": 0, "max_tokens": 40}
    return {"model": asked.model, "stream": True, **greedy, **more}


async def is_free(node: LabNode, within_s: float) -> None:
    await until(lambda: not sum(node.open_hops.values()), within_s)


@pytest.mark.parametrize("n", [1, 2])
async def test_a_reader_who_hangs_up_frees_the_chain(n: int, tiny: Path, cache: Path) -> None:
    async with gateway_on(tiny, cache, "0-8") as asked:
        (node,) = asked.swarm.nodes
        async with calling(asked.app, "/v1/completions", **ask(asked, n=n)) as call:
            await call.begin()
            async for _ in call.events():
                break
            assert sum(node.open_hops.values()) == n
            call.hang_up()
        await is_free(node, 5.0)


async def test_who_hangs_up_before_a_whole_answer_frees_the_chain(tiny: Path, cache: Path) -> None:
    async with gateway_on(tiny, cache, "0-8") as asked:
        (node,) = asked.swarm.nodes
        body = ask(asked, stream=False, max_tokens=200)
        async with calling(asked.app, "/v1/completions", **body) as call:
            await until(lambda: sum(node.open_hops.values()) > 0, 5.0)
            call.hang_up()
        await is_free(node, 5.0)


async def test_a_cut_stream_ends_with_an_error_and_is_resumed_where_it_was_cut(
    tiny: Path, cache: Path
) -> None:
    async with gateway_on(tiny, cache, "0-3", "4-8") as asked:
        whole = (await asked.post("/v1/completions", **ask(asked, stream=False))).json()
        events: list[Any] = []
        async with calling(asked.app, "/v1/completions", **ask(asked)) as call:
            await call.begin()
            async for event in call.events():
                events.append(event)
                if len(events) == 10:
                    asked.swarm.kill(asked.swarm.nodes[1])
        name, told = events[-1]
        assert name == "error"
        assert told["error"]["code"] == "answer_cut"
        assert told["error"]["missing_layers"] == ["4-8"]
        assert all(chunk["choices"][0]["finish_reason"] is None for chunk in events[:-1])
        resume = {"id": told["error"]["resume_id"]}

        too_early = await asked.http.post("/v1/resume", json=resume)
        assert too_early.status_code == 503
        resume = {"id": too_early.json()["error"]["resume_id"]}
        await asked.swarm.start("4-8")
        async with calling(asked.app, "/v1/resume", **resume) as call:
            await call.begin()
            events[-1:] = [event async for event in call.events()]
        assert events[-1] == "[DONE]"
        text = "".join(chunk["choices"][0]["text"] for chunk in events[:-1])
        assert text == whole["choices"][0]["text"]
        assert events[-2]["choices"][0]["finish_reason"] == "length"
        again = await asked.http.post("/v1/resume", json=resume)
        assert again.status_code == 404


async def test_a_whole_answer_that_was_cut_is_resumed_as_a_whole(tiny: Path, cache: Path) -> None:
    async with gateway_on(tiny, cache, "0-3", "4-8") as asked:
        body = ask(asked, stream=False, n=2, temperature=1, seed=3)
        whole = (await asked.post("/v1/completions", **body)).json()
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(asked.post("/v1/completions", **body))
            await until(lambda: asked.tokens > 95, 30.0)
            asked.swarm.kill(asked.swarm.nodes[0])
        cut = asking.result()
        assert cut.status_code == 503
        error = cut.json()["error"]
        await asked.swarm.start("0-3")
        resumed = await asked.http.post(
            "/v1/resume", json={"id": error["resume_id"], "stream": False}
        )
    texts = [choice["text"] for choice in resumed.json()["choices"]]
    assert texts == [choice["text"] for choice in whole["choices"]]


async def test_a_cut_answer_is_kept_for_a_while_only(tiny: Path, cache: Path) -> None:
    async with gateway_on(tiny, cache, "0-3", "4-8", resume_for_s=60.0) as asked:
        async with calling(asked.app, "/v1/completions", **ask(asked)) as call:
            await call.begin()
            async for event in call.events():
                if not isinstance(event, tuple):
                    asked.swarm.kill(asked.swarm.nodes[1])
        await asyncio.sleep(60.0)
        late = await asked.http.post("/v1/resume", json={"id": event[1]["error"]["resume_id"]})
    assert late.json()["error"]["code"] == "resume_not_found"


async def test_a_reader_who_takes_nothing_is_dropped(tiny: Path, cache: Path) -> None:
    async with gateway_on(tiny, cache, "0-8", send_timeout_s=3.0) as asked:
        (node,) = asked.swarm.nodes
        async with calling(asked.app, "/v1/completions", max_unread=4, **ask(asked)) as call:
            await call.begin()
            await is_free(node, 60.0)


async def test_a_slow_first_token_is_bridged_by_pings(tiny: Path, cache: Path) -> None:
    async with gateway_on(tiny, cache, "0-8", ping_interval_s=1.0) as asked:
        (node,) = asked.swarm.nodes
        node.conditions.compute_s = 2.5
        async with calling(asked.app, "/v1/completions", **ask(asked, max_tokens=2)) as call:
            await call.begin()
            assert "p2pnode-chain-id" not in call.headers
            events = [event async for event in call.events()]
        assert call.raw.startswith(": still here")
    assert events[-1] == "[DONE]"
