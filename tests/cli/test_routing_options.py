"""`generate --explain` and the limits on speed, over a swarm in this process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from p2pnode.cli.answer import generate_once
from p2pnode.cli.exits import Failed
from p2pnode.cli.output import Output
from p2pnode.errors import NoChain
from p2pnode.lab.swarm import LocalSwarm

pytestmark = pytest.mark.virtual_time

OPTIONS = {"max_tokens": 4, "stop": ()}


async def test_the_explanation_comes_with_the_chain(
    tiny: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {"explains": True}
    async with LocalSwarm(tiny, cache=cache, latency_s=0.01, config=config) as swarm:
        await swarm.start("0-2", "3-8", "0-8")
        await generate_once(swarm.client(), "Once", OPTIONS, Output(as_json=True))
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    chain, explained = (
        next(event for event in events if event["event"] == name) for name in ("chain", "explain")
    )
    hops = [{name: hop[name] for name in ("peer", "layers")} for hop in explained["chosen"]["hops"]]
    assert hops == chain["chain"]
    assert explained["others"][0]["total_s"] >= explained["chosen"]["total_s"]


async def test_a_chain_slower_than_asked_for_is_an_error_that_names_the_hop(
    tiny: Path, cache: Path
) -> None:
    config = {"max_token_s": 0.02}
    async with LocalSwarm(tiny, cache=cache, latency_s=0.01, config=config) as swarm:
        await swarm.start("0-2", "3-8")
        with pytest.raises(Failed, match=r"more than the 20 ms asked for; most of it at") as caught:
            await generate_once(swarm.client(), "Once", OPTIONS, Output())
    assert isinstance(caught.value.error, NoChain)
