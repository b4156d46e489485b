"""The p2pd of a node: when it dies, when the node dies, and what is left on disk."""

from __future__ import annotations

import signal
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from p2pnode.client.blocking import BlockingClient
from p2pnode.client.events import ChainChosen, Done, Token
from p2pnode.model.reference import greedy
from p2pnode.model.source import find_model
from p2pnode.model.text import TextCodec
from tests.support.commands import Command, sockets_in
from tests.support.swarms import served, short_home

pytestmark = pytest.mark.processes

PROMPT = "Once upon a time"
NUM_TOKENS = 24
GONE_WITHIN_S = 1.0


def bootstrap(home: Path) -> Command:
    """A node without a model: it starts faster."""
    return Command("bootstrap", "--home", str(home), "--host", "127.0.0.1")


def test_a_node_whose_daemon_is_killed_heals_and_its_session_fails_over(cache: Path) -> None:
    folder = find_model(None, cache=cache).folder
    expected = greedy(folder, TextCodec.load(folder).encode(PROMPT), NUM_TOKENS)
    with short_home() as home, served(home, "0-26", "0-26") as nodes:
        addresses = [node.address for node in nodes]
        made: list[int] = []
        used: list[str] = []
        with BlockingClient(join=addresses, folder=home / "client") as client:
            with closing(client.stream(PROMPT, max_tokens=NUM_TOKENS)) as events:
                for event in events:
                    if isinstance(event, ChainChosen):
                        used.append(event.chain.hops[0].peer)
                    elif isinstance(event, Token):
                        made.append(event.token_id)
                        if len(made) == 8:
                            hurt = next(node for node in nodes if node.peer == used[0])
                            hurt.daemon().kill()
                    elif isinstance(event, Done):
                        done = event
            assert made == list(done.token_ids) == expected
            assert done.failovers == 1
            assert used[1] != used[0]
            before = hurt.peer
            hurt.wait_serving()
            assert hurt.peer == before
            (other,) = [node for node in nodes if node is not hurt]
            other.kill()
            again = client.generate(PROMPT, max_tokens=NUM_TOKENS)
            assert list(again.token_ids) == expected
            assert [hop.peer for hop in again.chain.hops] == [hurt.peer]


def left_of(daemons: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run a moment later; init may not have buried the others yet."""
    _, alive = psutil.wait_procs(daemons, timeout=GONE_WITHIN_S)
    return [each for each in alive if each.status() != psutil.STATUS_ZOMBIE]


def test_two_nodes_of_one_home_take_two_keys_and_signals_leave_nothing_of_them() -> None:
    with short_home() as home, bootstrap(home) as first, bootstrap(home) as second:
        peers = {node.wait_for("listening")["peer"] for node in (first, second)}
        assert len(peers) == 2
        assert sorted(path.name for path in (home / "keys").iterdir()) == ["node-2.key", "node.key"]
        for node, number in ((first, signal.SIGINT), (second, signal.SIGTERM)):
            daemons = node.children()
            assert daemons
            assert sockets_in(home)
            node.end(number)
            assert left_of(daemons) == []
        assert sockets_in(home) == []


def test_sigkill_takes_the_daemon_along_and_the_next_start_tidies_up() -> None:
    with short_home() as home:
        with bootstrap(home) as node:
            peer = node.wait_for("listening")["peer"]
            daemons = node.children()
            assert daemons
            node.end(signal.SIGKILL)
            assert left_of(daemons) == []
        assert sockets_in(home)
        with bootstrap(home) as node:
            assert node.wait_for("listening")["peer"] == peer
        assert sockets_in(home) == []
