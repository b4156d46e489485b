"""What people and scripts see, and what a stranger's text cannot do to a terminal."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.cli.output import Output, ProgressBar, chain_fields, layers_of, printable
from p2pnode.cli.swarm_table import show
from p2pnode.errors import BadRequest, NoChain
from p2pnode.types import Chain, Hop, LayerRange, SwarmView
from tests.support.announcements import NOW, announcement, key_pair


@given(st.text())
def test_generated_text_cannot_steer_a_terminal(text: str) -> None:
    shown = printable(text)
    assert all(char.isprintable() or char in "\n\t\u200c\u200d" for char in shown)


@pytest.mark.parametrize("text", ["plain\n\ttext", "naïve café", "हिन्दी", "你好", "back\\slash"])
def test_generated_text_of_any_script_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_an_event_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=True).event("token", text='a "quoted"\nline\u2028\x1b[2J')
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert out.isascii()
    assert json.loads(out) == {"event": "token", "text": 'a "quoted"\nline\u2028\x1b[2J'}


def test_scripts_get_json_only_and_people_none(capsys: pytest.CaptureFixture[str]) -> None:
    for output in (Output(as_json=True), Output()):
        output.say("line")
        output.write("text")
        output.note("beside it")
        output.paint("in red", "\x1b[31m")
        output.table(("A",), [("b",)])
        output.event("token")
    captured = capsys.readouterr()
    assert captured.out == '{"event": "token"}\nline\ntextin redA\nb\n'
    assert captured.err == ""


def test_a_progress_bar_stays_away_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar("loading") as bar:
        bar.update(1, 2)
    assert capsys.readouterr().err == ""


def test_layers_of_an_error_are_a_string() -> None:
    assert layers_of(BadRequest("no")) is None
    assert layers_of(NoChain("none", (LayerRange(14, 27),))) == "14-26"
    assert layers_of(NoChain("none", (LayerRange(0, 4), LayerRange(9, 18)))) == "0-3,9-17"


def test_a_chain_has_full_peer_ids_and_inclusive_layers() -> None:
    peer = announcement(key_pair(1)).peer
    chain = Chain((Hop(peer, LayerRange(0, 9)),), "float32")
    assert chain_fields(chain) == [{"peer": peer, "layers": "0-8"}]


def swarm(**changes: Any) -> SwarmView:
    """Two peers for layers 0-8, one for 18-26, nobody for the rest."""
    return SwarmView(
        tuple(
            announcement(key_pair(number), layers=LayerRange(start, start + 9), **changes)
            for number, start in enumerate((0, 0, 18))
        )
    )


def test_status_tells_scripts_what_is_covered(capsys: pytest.CaptureFixture[str]) -> None:
    show(swarm(), now=NOW + 5.0, output=Output(as_json=True))
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"swarm", "num_peers", "models", "peers"}
    (model,) = found["models"]
    assert model["num_layers"] == 27
    assert model["uncovered"] == ["9-17"]
    assert [peer["layers"] for peer in found["peers"]] == ["0-8", "0-8", "18-26"]
    wanted = "peer layers dtype vram_total_bytes vram_free_bytes latency_s tokens_per_s addresses"
    for peer in found["peers"]:
        assert {*wanted.split(), "age_s"} <= set(peer)
        assert peer["age_s"] == 5.0
        assert len(peer["peer"]) == 52


def test_status_tells_people_what_is_covered(capsys: pytest.CaptureFixture[str]) -> None:
    show(swarm(), now=NOW, output=Output())
    text = capsys.readouterr().out
    assert text.startswith("PEER ")
    assert text.count("0-8 ") == 2
    assert text.splitlines()[-1].endswith("27 layers; nobody serves 9-17")


def test_status_of_an_empty_swarm_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    show(SwarmView(()), now=NOW, output=Output())
    assert "p2pnode serve --layers" in capsys.readouterr().out


def test_a_peers_name_for_its_model_cannot_fake_lines(capsys: pytest.CaptureFixture[str]) -> None:
    show(swarm(model="x\nall covered\x1b[1m", device_name="\u202egpu"), now=NOW, output=Output())
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert "\x1b" not in "".join(lines)
    assert "\u202e" not in "".join(lines)
