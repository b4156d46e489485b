"""What the client has seen of its peers, in plain words, and for scripts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from p2pnode.cli.answer import generate_once
from p2pnode.cli.output import Output
from p2pnode.cli.peers_seen import bars, duration, peers_seen_fields, show_peers_seen
from p2pnode.client.peers import PeerSeen, peers_seen
from p2pnode.lab.swarm import LabNode, LocalSwarm
from p2pnode.routing.histogram import Histogram
from p2pnode.routing.reputation import Offence, Reputation
from tests.support.peers import announced, peer, view

A, B = peer("A"), peer("B")
NUM_TOKENS = 12


def example() -> tuple[PeerSeen, ...]:
    reputation = Reputation()
    for now in (0.0, 100.0):
        reputation.saw([A, B], now)
    for step_s in (0.003, 0.003, 0.003, 0.003, 0.02):
        reputation.measured(A, step_s, 100.0)
    reputation.blame(B, Offence.TIMEOUT, 100.0)
    reputation.blame(B, Offence.LOST, 100.0)
    return peers_seen(reputation, view(announced("A", "0-4"), announced("B", "5-8")), 110.0)


def test_people_see_a_row_for_each_peer_and_what_it_means(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_peers_seen(Output(), example())
    _, heading, first, second, *meaning = capsys.readouterr().out.splitlines()
    assert heading.startswith("PEER      LAYERS  STEPS  P50 MS  P95 MS  1 MS TO 16 S")
    assert first.split() == [A.short, "0-4", "5", "4", "32", "█", "▂", "1", "min", "-", "-", "-"]
    assert second.split("  ")[-3:] == ["1 min to 10 min: 1", "timeout 1, lost 1", "50 s"]
    assert meaning[0].startswith("What this client has seen of them.")


def test_scripts_get_the_histograms_in_seconds() -> None:
    first, second = json.loads(json.dumps(peers_seen_fields(example())))
    assert (first["peer"], first["layers"], first["num_steps"]) == (A, "0-4", 5)
    assert (first["step_p50_s"], first["step_p95_s"]) == (0.004, 0.032)
    assert sum(first["steps"]["counts"]) == 5
    assert len(first["steps"]["counts"]) == len(first["steps"]["edges_s"]) + 1
    assert (first["there_s"], first["failures"], first["back_off_s"]) == (110.0, {}, 0.0)
    assert second["failures"] == {"timeout": 1, "lost": 1}
    assert (second["there_s"], second["step_p50_s"]) == (None, None)
    assert second["back_off_s"] == 50.0


def test_nothing_is_shown_of_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    show_peers_seen(Output(), ())
    assert capsys.readouterr().out == ""


def test_the_fullest_bucket_has_the_highest_bar_and_one_step_is_visible() -> None:
    histogram = Histogram((1.0, 2.0, 3.0), [1, 0, 50, 100])
    assert bars(histogram) == "▁ ▄█"
    assert bars(Histogram((1.0,), [3, 0])) == "█"


def test_durations_are_whole_units() -> None:
    spoken = {0.4: "0 s", 59.9: "59 s", 60.0: "1 min", 7200.0: "2 h", 90_000.0: "1 d", 7e5: "1 w"}
    assert {seconds: duration(seconds) for seconds in spoken} == spoken


@pytest.mark.virtual_time
async def test_an_explained_answer_ends_with_its_peers_and_a_lost_one_among_them(
    tiny: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"max_tokens": NUM_TOKENS, "stop": ()}
    async with LocalSwarm(tiny, cache=cache, latency_s=0.01, config={"explains": True}) as swarm:
        victim, *_ = await swarm.start("0-2", "3-8")
        await swarm.start("0-2", latency_s=1.0)
        await generate_once(swarm.client(), "Once", options, KillingOutput(swarm, victim))
    *_, peers, done = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (peers["event"], done["event"]) == ("peers", "done")
    shown = {each["peer"]: each for each in peers["peers"]}
    assert set(shown) == {node.peer for node in swarm.nodes}
    assert sum(shown[victim.peer]["failures"].values()) == 1
    assert shown[victim.peer]["back_off_s"] > 0.0
    assert shown[swarm.nodes[1].peer]["num_steps"] > NUM_TOKENS / 2
    assert shown[swarm.nodes[1].peer]["step_p50_s"] >= 0.01


class KillingOutput(Output):
    """Kills a node when its fifth token is shown."""

    def __init__(self, swarm: LocalSwarm, victim: LabNode) -> None:
        super().__init__(as_json=True)
        object.__setattr__(self, "kill", lambda: swarm.kill(victim))
        object.__setattr__(self, "counts", iter(range(1, 1000)))

    def event(self, event: str, **fields: object) -> None:
        super().event(event, **fields)
        if event == "token" and next(self.counts) == 5:  # type: ignore[attr-defined]
            self.kill()  # type: ignore[attr-defined]
