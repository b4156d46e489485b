"""`p2pnode top`: what is drawn of a swarm, and when it is drawn anew."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console, ConsoleDimensions

from p2pnode.cli import main
from p2pnode.cli.exits import FAILED
from p2pnode.cli.top_face import with_ages
from p2pnode.cli.top_view import screen
from p2pnode.client.peers import Observed
from p2pnode.client.picture import picture
from p2pnode.types import Liveness, SwarmView
from tests.support.peers import announced, view


def drawn(swarm: SwarmView, *, width: int = 140, height: int = 40) -> str:
    """What a terminal without colours would show."""
    file = io.StringIO()
    console = Console(file=file, width=width, height=height, color_system=None)
    shown = with_ages(picture(Observed(view=swarm, seen=(), rtts_s={})), swarm, now=5.0)
    console.print(screen(shown, ConsoleDimensions(width, height)))
    return file.getvalue()


def test_thin_layers_stand_out_of_the_map() -> None:
    text = drawn(view(announced("A", "0-4"), announced("B", "0-2"), announced("C", "7-8")))
    assert "9 layers, 3 peers, nobody serves 5-6" in text
    lines = [line.split()[-1] for line in text.splitlines() if line.startswith(("PEERS", "11"))]
    assert lines[:4] == ["222110011", "███······", "█████····", "·······██"]


def test_a_peers_row_says_how_it_is() -> None:
    sick = {"num_sessions": 3, "step_times": ((1, 0.02, 0.03),), "errors": (("gap", 2),)}
    text = drawn(
        view(
            announced("A", "0-8", vram_total_bytes=8 * 10**9, vram_free_bytes=6 * 10**9),
            announced("B", "0-8"),
            announced("C", "0-8"),
            A=sick,
            B={"liveness": Liveness.DEAD},
            C={"is_draining": True},
        )
    )
    rows = {line.split()[0][-1]: line for line in text.splitlines() if " 5 s" in line}
    assert "6.0 of 8.0 GB" in rows["A"]
    assert "20.0 ms" in rows["A"]
    assert "alive; gap 2" in rows["A"]
    assert " dead " in rows["B"]
    assert " leaving " in rows["C"]


def test_what_a_stranger_wrote_cannot_steer_the_terminal() -> None:
    evil = "\x1b[2J[bold]\u202e\nfake"
    text = drawn(
        view(
            announced("A", "0-8", model=evil, device_name=evil, numerics=evil),
            A={"errors": ((evil, 1),)},
        )
    )
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "fake line" not in text
    assert r"\x1b[2J[bold]" in text


def test_a_narrow_terminal_shows_the_thinnest_layer_of_each_column() -> None:
    many = [
        dataclasses.replace(announced(name, layers), num_layers=80)
        for name, layers in (("A", "0-79"), ("B", "0-38"))
    ]
    text = drawn(view(*many), width=22)
    depths = next(line for line in text.splitlines() if line.startswith("PEERS"))
    assert depths.split()[-1] == "2222111111"


def test_a_large_swarm_is_cut_to_the_screen_and_says_so() -> None:
    swarm = view(*(announced(f"P{n}", "0-8") for n in range(1, 10)))
    text = drawn(swarm, height=16)
    assert "and 4 more" in text
    assert len(text.splitlines()) <= 16


def test_nobody_is_said_in_words() -> None:
    assert drawn(SwarmView(())) == "nobody serves a model here; q quits\n"


def test_without_a_terminal_it_says_what_there_is_instead(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main.run(["top"]) == (FAILED, True)
    assert "--json" in capsys.readouterr().err
