"""Who may feed the first hop, how far ahead of whom, and what the client's own steps say of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from p2pnode.net.memory import fake_peer_id
from p2pnode.pipeline.configure import int64
from p2pnode.serving.job import Output
from p2pnode.serving.ring import MAX_AHEAD, Differs, Ring, following
from p2pnode.serving.session import HopSession
from p2pnode.types import Chosen, LayerRange, PeerId
from p2pnode.wire.messages import Step
from tests.serving.test_session import CLIENT, FakeBlock, session
from tests.support.hostile import step

LAST, STRANGER = fake_peer_id(7), fake_peer_id(8)
ROOM = 4 * MAX_AHEAD


def first_hop(told: int = 4) -> HopSession:
    """It has been fed ``told`` tokens by its client."""
    block = FakeBlock(LayerRange(0, 3))
    hop = session(block=block, previous=None, ring=Ring(LAST), max_tokens=ROOM)
    fed(hop, CLIENT, 0, *range(told))
    return hop


def fed(hop: HopSession, sender: PeerId, position: int, *token_ids: int, **changes: Any) -> bool:
    """Whether a step with these tokens is run."""
    message = replace(step(position, int64(list(token_ids)), layer=0), epoch=1, **changes)
    assert hop.may_step(sender, message)
    return hop.accept(message, sender, now=0.0) is not None


def test_the_last_hop_may_feed_the_next_token_and_nothing_else() -> None:
    hop = first_hop()
    assert not hop.may_step(STRANGER, step(4, int64([4]), layer=0))
    assert not fed(hop, LAST, 3, 9), "what is known already"
    assert not fed(hop, LAST, 5, 9), "a gap, which is no fault of the client's"
    assert not fed(hop, LAST, 4, 9, 9), "two tokens"
    assert not fed(hop, LAST, 4, 9, branch=1), "a branch that only the client may begin"
    assert fed(hop, LAST, 4, 9)
    assert fed(hop, LAST, 5, 10)


def test_the_client_says_the_same_later_and_it_is_a_repeat() -> None:
    hop = first_hop()
    assert fed(hop, LAST, 4, 9)
    assert fed(hop, LAST, 5, 10)
    assert not fed(hop, CLIENT, 4, 9)
    assert not fed(hop, CLIENT, 5, 10)
    assert fed(hop, CLIENT, 6, 11)
    assert not fed(hop, LAST, 6, 12), "the client was first"


def test_another_token_than_the_client_knows_is_found_out() -> None:
    hop = first_hop()
    assert fed(hop, LAST, 4, 9)
    with pytest.raises(Differs) as raised:
        fed(hop, CLIENT, 4, 8)
    assert raised.value.peer == LAST


def test_a_guess_may_differ() -> None:
    hop = first_hop()
    assert fed(hop, LAST, 4, 9)
    assert fed(hop, LAST, 5, 10)
    assert not fed(hop, CLIENT, 4, 9)
    assert fed(hop, CLIENT, 5, 1, 2, 3, num_guessed=3)


def test_what_was_cut_off_is_not_compared() -> None:
    hop = first_hop()
    assert fed(hop, LAST, 4, 9)
    hop.cut(1, 4)
    assert fed(hop, CLIENT, 4, 8, branch=1)


def test_nobody_runs_further_ahead_than_allowed_and_then_goes_on() -> None:
    hop, ring = first_hop(), None
    for position in range(4, 4 + MAX_AHEAD):
        assert fed(hop, LAST, position, position)
    ahead = 4 + MAX_AHEAD
    assert not fed(hop, LAST, ahead, ahead)
    ring = hop.ring
    assert ring is not None
    assert ring.released() is None
    assert not fed(hop, CLIENT, 4, 4)
    released = ring.released()
    assert released is not None
    assert released.position == ahead
    assert hop.accept(released, LAST, now=0.0) is not None
    assert ring.released() is None


def last_hop(**changes: Any) -> HopSession:
    fields = {"position": 5, "accepted": 5, "settled": 5, "ring": Ring(LAST), **changes}
    return session(block=FakeBlock(LayerRange(6, 9)), next=None, **fields)


def handed(hop: HopSession) -> Step | None:
    return following(hop, Output(4, chosen=(Chosen(300, 0.0, ()),)))


def test_the_last_hop_hands_on_what_it_has_chosen() -> None:
    made = handed(last_hop(branch=2))
    assert made is not None
    assert (made.layer, made.epoch, made.branch, made.position) == (0, 1, 2, 5)
    assert bytes(made.entry.data) == bytes(int64([300]).data)


@pytest.mark.parametrize(
    "changes",
    [
        {"ring": None},
        {"accepted": 6},
        {"settled": 4},
        {"send_from": 16},
        {"position": 16, "accepted": 16, "settled": 16},
    ],
    ids=["no ring", "more is there", "a guess", "a standby", "the end"],
)
def test_there_is_nothing_to_hand_on(changes: dict[str, Any]) -> None:
    assert handed(last_hop(**changes)) is None
