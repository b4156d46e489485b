"""What the client keeps of each hop."""

from __future__ import annotations

from typing import Any

import pytest

from p2pnode.errors import PeerLost
from p2pnode.net.memory import fake_peer_id
from p2pnode.pipeline.hops import HopState, positions
from p2pnode.types import Hop, LayerRange

pytestmark = pytest.mark.virtual_time


class FakeLink:
    """Keeps what is sent."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.is_open = is_open
        self.sent: list[object] = []

    def send(self, message: object) -> None:
        self.sent.append(message)


def state(number: int = 0, held: int = 0, *, link: Any = None) -> HopState:
    layers = LayerRange(3 * number, 3 * number + 3)
    return HopState(Hop(fake_peer_id(number), layers), link=link, held=held)


async def test_a_hop_is_usable_while_its_link_is_open_and_nobody_called_it_lost() -> None:
    assert not state().is_usable
    assert state(link=FakeLink()).is_usable
    assert not state(link=FakeLink(is_open=False)).is_usable
    lost = state(link=FakeLink())
    lost.is_lost = True
    assert not lost.is_usable


async def test_sending_without_a_link_is_the_hops_loss() -> None:
    for link in (None, FakeLink(is_open=False)):
        with pytest.raises(PeerLost, match="its link is gone"):
            state(link=link).send("hello")
    link = FakeLink()
    state(link=link).send("hello")
    assert link.sent == ["hello"]


async def test_a_hop_is_awaited_from_the_question_to_the_answer() -> None:
    hop = state(link=FakeLink())
    assert not hop.is_awaited
    reply = hop.expect_reply()
    assert hop.is_awaited
    hop.answer("yes")
    hop.answer("again")
    assert not hop.is_awaited
    assert await reply == "yes"


async def test_a_hop_whose_answer_came_too_late_counts_as_awaited() -> None:
    hop = state(link=FakeLink())
    hop.expect_reply().cancel()
    assert hop.is_awaited
    hop.answer("late")
    hop.expect_nothing()
    assert not hop.is_awaited


async def test_a_failure_reaches_the_one_who_waits() -> None:
    hop = state(link=FakeLink())
    hop.fail(PeerLost(hop.peer, "nobody waits"))
    reply = hop.expect_reply()
    hop.fail(PeerLost(hop.peer, "gone"))
    with pytest.raises(PeerLost, match="gone"):
        await reply


async def test_a_new_hop_starts_at_0_and_the_last_one_gives_its_last_output_again() -> None:
    hops = [state(0, 7, link=FakeLink()), state(1, 7), state(2, 7, link=FakeLink())]
    assert positions(hops, 7) == [7, 0, 6]
    assert positions(hops, 9) == [7, 0, 7]
