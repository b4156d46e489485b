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
NUM_TOKENS = 120
KILLED = {10: (1,), 60: (0, 2)}
"""After so many tokens: which nodes; the hops may be `MAX_AHEAD` tokens ahead of the reader."""


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
                    for event in events:
                        if isinstance(event, Token):
                            made.append(event.token_id)
                            for index in KILLED.get(len(made), ()):
                                nodes[index].kill()
                        elif isinstance(event, ChainChosen):
                            chains.append(event.chain)
                        elif isinstance(event, Done):
                            done = event
    folder = find_model(None, cache=cache).folder
    prompt_ids = TextCodec.load(folder).encode(PROMPT)
    assert made == greedy(folder, prompt_ids, NUM_TOKENS)
    assert list(done.token_ids) == made
    assert done.failovers >= len(KILLED)
    assert [hop.peer for hop in chains[1].hops] == [nodes[0].peer, spare.peer, nodes[2].peer]
    assert {hop.peer for hop in chains[-1].hops} == {spare.peer}
