"""What a node shows of itself while it runs."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from p2pnode.cli.exits import ReaderGone
from p2pnode.cli.node_face import NodeFace
from p2pnode.cli.output import Output, ProgressBar
from p2pnode.cli.run import run_async

PEER = "12D3KooWAQLw39YCYFXa9zQZ8Nc2ufYCNN5yxNpmt6rF4D6Dww6t"
ADDRESS = f"/ip4/203.0.113.7/tcp/4001/p2p/{PEER}"
COURSE: list[tuple[str, dict[str, Any]]] = [
    ("listening", {"peer": PEER, "addresses": [ADDRESS], "founded": True}),
    ("loading", {"what": "loading", "done_bytes": 1, "total_bytes": 2}),
    ("serving", {"peer": PEER, "model": "m\x1b[2J", "layers": "0-8", "dtype": "float32"}),
    ("session_opened", {"session": "ab", "client": PEER, "layers": "0-8"}),
    ("session_closed", {"session": "ab", "client": PEER, "layers": "0-8"}),
]


def show(face: NodeFace) -> None:
    for event, fields in COURSE:
        face.on_event(event, fields)
    face.on_event("stopping", {})


def test_scripts_get_every_event_but_the_progress_of_loading(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show(NodeFace(Output(as_json=True), ProgressBar("loading")))
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    names = [event.pop("event") for event in events]
    assert names == ["listening", "serving", "session_opened", "session_closed", "stopping"]
    assert events[0] == COURSE[0][1]


def test_people_get_the_line_that_others_type_to_join(capsys: pytest.CaptureFixture[str]) -> None:
    show(NodeFace(Output(), ProgressBar("loading")))
    text = capsys.readouterr().out
    assert f"p2pnode serve --layers FIRST-LAST --join {ADDRESS}\n" in text
    assert "a new one" in text
    assert "layers 0-8 of m\\x1b[2J in float32" in text
    assert text.endswith("Ctrl-C again stops at once\n")


class BrokenOutput(Output):
    """Nobody reads it any more."""

    def event(self, event: str, **fields: Any) -> None:
        raise ReaderGone


def test_a_reader_that_leaves_ends_the_node_which_still_cleans_up() -> None:
    face = NodeFace(BrokenOutput(), ProgressBar("loading"))
    course: list[str] = []

    async def node() -> None:
        face.on_event(*COURSE[0])
        face.on_event(*COURSE[2])
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            course.append("cleaned up")

    with pytest.raises(ReaderGone):
        run_async(face.watch(node()))
    assert course == ["cleaned up"]


def test_a_node_that_joined_others_does_not_speak_of_a_new_swarm(
    capsys: pytest.CaptureFixture[str],
) -> None:
    face = NodeFace(Output(), ProgressBar("loading"))
    face.on_event("listening", {"peer": PEER, "addresses": [], "founded": False})
    assert capsys.readouterr().out == f"peer       {PEER}\n"


def test_a_node_of_a_private_swarm_tells_how_to_invite_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    face = NodeFace(Output(), ProgressBar("loading"))
    fields = {"peer": PEER, "addresses": [ADDRESS], "founded": False, "swarm": "club"}
    face.on_event("listening", fields)
    shown = capsys.readouterr().out
    assert "p2pnode swarm invite --swarm club" in shown
    assert "--join" not in shown
