"""What a member of a private swarm may have of a node."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from p2pnode.errors import PeerRefused
from p2pnode.lab.members import Founder
from p2pnode.net.memory import fake_identity, fake_peer_id
from p2pnode.serving.quotas import DAY_S, Quotas
from p2pnode.trust.grants import Quota
from p2pnode.types import PeerId

CLIENT, OTHER, NODE = map(fake_peer_id, (1, 2, 3))


def quotas(**limits: int) -> Quotas:
    warrant = Founder().grant(fake_identity(1), quota=Quota(**limits))
    return Quotas(NODE, lambda peer: warrant if peer == CLIENT else None)


def session(number: int, *, max_tokens: int = 10, position: int = 0, peer: PeerId = CLIENT) -> Any:
    client = SimpleNamespace(peer=peer)
    return SimpleNamespace(
        id=bytes([number]), client=client, max_tokens=max_tokens, position=position
    )


def test_sessions_at_a_time_are_counted_for_each_member() -> None:
    held = quotas(sessions=2)
    held.take(CLIENT, 10, [session(1), session(1), session(3, peer=OTHER)], 0.0)
    with pytest.raises(PeerRefused, match="2 sessions at a time"):
        held.take(CLIENT, 10, [session(1), session(2)], 0.0)
    held.take(OTHER, 10, [session(1), session(2)], 0.0)


def test_tokens_come_back_evenly_over_a_day() -> None:
    held = quotas(tokens_per_day=100)
    held.take(CLIENT, 80, [], 0.0)
    with pytest.raises(PeerRefused, match="20 are left and 50 asked") as caught:
        held.take(CLIENT, 50, [], 0.0)
    assert caught.value.retry_after_s == pytest.approx(0.3 * DAY_S)
    held.take(CLIENT, 50, [], 0.31 * DAY_S)


def test_a_session_gives_back_what_it_has_not_used() -> None:
    held = quotas(tokens_per_day=100)
    held.take(CLIENT, 80, [], 0.0)
    held.give_back(session(1, max_tokens=80, position=10), 0.0)
    held.take(CLIENT, 90, [], 0.0)
    with pytest.raises(PeerRefused):
        held.take(CLIENT, 1, [], 0.0)


def test_nobody_has_a_quota_where_none_is_given() -> None:
    held = quotas()
    held.take(CLIENT, 1 << 40, [session(n) for n in range(50)], 0.0)
    held.give_back(session(1), 0.0)
