"""`--explain`: the sum in plain words, and for scripts."""

from __future__ import annotations

import json

import pytest

from p2pnode.cli.output import Output
from p2pnode.cli.why import show_explanation
from p2pnode.routing.explain import explain
from tests.support.peers import announced, needs, peer, view

EXPLANATION = explain(
    view(
        announced("A", "0-4", latency_s=0.01),
        announced("B", "5-8", latency_s=0.02),
        announced("C", "0-8", latency_s=0.2),
        A={"queue_s": 0.004},
    ),
    needs(max_token_s=0.5),
)


def test_people_see_each_hop_the_sum_and_the_runners_up(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_explanation(Output(), EXPLANATION)
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split()[3:] == [*"waits computes way uplink correction risk draw sum".split()]
    cells = [line.split() for line in lines[:5]]
    assert cells[0] == [peer("A").short, "0-4", *"4.0 10.0 15.0 0.0 0.0 0.0 0.0 29.0".split()]
    assert cells[2][:2] == ["and", "back"]
    assert cells[3] == ["chosen", *"4.0 30.0 45.0 0.0 0.0 0.0 0.0 79.0".split()]
    assert cells[4][:3] == ["instead", peer("A").short, "0-4"]
    assert cells[4][5:7] == ["5-8", "4.0"]
    assert any(line.startswith("waits: for the device;") for line in lines)


def test_in_a_ring_there_is_no_way_back(capsys: pytest.CaptureFixture[str]) -> None:
    swarm = view(announced("A", "0-4"), announced("B", "5-8"))
    show_explanation(Output(), explain(swarm, needs(has_ring=True)))
    said = capsys.readouterr().out
    assert "and back" not in said
    assert "The last one hands each token to the first" in said
    assert said.splitlines()[3].split() == ["chosen", *"0.0 20.0 30.0 0.0 0.0 0.5 0.0 50.5".split()]


def test_scripts_get_the_terms_in_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    show_explanation(Output(as_json=True), EXPLANATION)
    (line,) = capsys.readouterr().out.splitlines()
    event = json.loads(line)
    assert event["event"] == "explain"
    assert (event["num_peers"], event["limit_s"], len(event["others"])) == (3, 0.5, 2)
    first, _ = event["chosen"]["hops"]
    assert (first["peer"], first["layers"]) == (peer("A"), "0-4")
    terms = [first[name] for name in first if name.endswith("_s") and name != "total_s"]
    assert sum(terms) == pytest.approx(first["total_s"]) == pytest.approx(0.029)
    hops = sum(hop["total_s"] for hop in event["chosen"]["hops"])
    assert hops + event["chosen"]["return_s"] == pytest.approx(event["chosen"]["total_s"])
