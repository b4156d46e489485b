"""Three real nodes and a client against the unsplit model; every hop is killed with SIGKILL."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from p2pnode.client.blocking import BlockingClient
from p2pnode.client.events import ChainChosen, Done, Token
from p2pnode.model.reference import greedy
from p2pnode.model.source import find_model
from p2pnode.model.text import TextCodec
from p2pnode.types import Chain
from tests.support.swarms import served, short_home

pytestmark = pytest.mark.processes

PROMPT = "Once upon a time"
NUM_TOKENS = 40
KILL_AT = (10, 18, 26)


def test_every_hop_is_killed_in_mid_answer_and_the_text_is_that_of_the_unsplit_model(
    cache: Path,
) -> None:
    made: list[int] = []
    chains: list[Chain] = []
    with short_home() as home, served(home, "0-8", "9-17", "18-26") as nodes:
        with BlockingClient(join=[nodes[1].address], folder=home / "client") as client:
            with closing(client.stream(PROMPT, max_tokens=NUM_TOKENS)) as events:
                while not made:
                    event = next(events)
                    if isinstance(event, Token):
                        made.append(event.token_id)
                    elif isinstance(event, ChainChosen):
                        chains.append(event.chain)
                assert [hop.peer for hop in chains[0].hops] == [node.peer for node in nodes]
                with served(home, "0-26") as (spare,):
                    doomed = [nodes[1], nodes[0], nodes[2]]
                    for event in events:
                        if isinstance(event, Token):
                            made.append(event.token_id)
                            if len(made) in KILL_AT:
                                doomed.pop(0).kill()
                        elif isinstance(event, ChainChosen):
                            chains.append(event.chain)
                        elif isinstance(event, Done):
                            done = event
    folder = find_model(None, cache=cache).folder
    prompt_ids = TextCodec.load(folder).encode(PROMPT)
    assert made == greedy(folder, prompt_ids, NUM_TOKENS)
    assert list(done.token_ids) == made
    assert done.failovers == len(KILL_AT)
    assert [len(chain.hops) for chain in chains] == [3, 3, 2, 1]
    assert {hop.peer for hop in chains[-1].hops} == {spare.peer}
