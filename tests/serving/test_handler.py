"""What happens to a node when those that it answers are gone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from p2pnode.errors import PeerLost
from p2pnode.net.memory import fake_peer_id
from p2pnode.serving.handler import Handler
from p2pnode.serving.limits import Limits
from p2pnode.serving.session import HopSession
from p2pnode.types import LayerRange, PeerId
from tests.support.hostile import SESSION

MIDDLE = LayerRange(3, 6)


class FakeBlock:
    """Has layers of a model of nine, and computes nothing."""

    spec = SimpleNamespace(num_layers=9)

    def __init__(self, layers: LayerRange = MIDDLE) -> None:
        self.layers = layers


class BrokenLink:
    """Looks open, and cannot send: its peer has stopped reading."""

    is_open = True

    def __init__(self, peer: PeerId) -> None:
        self.peer = peer
        self.num_tried = 0

    def send(self, message: object) -> None:
        self.num_tried += 1
        raise PeerLost(self.peer, "it has stopped reading")


def handler_with(client: Any, following: Any) -> tuple[Handler, HopSession, list[str]]:
    events: list[str] = []
    nothing: Any = None
    limits = Limits(
        chunk_tokens=8,
        session_idle_timeout_s=60.0,
        journal_bytes=1 << 20,
        journals_bytes=1 << 20,
    )
    handler = Handler(
        nothing, nothing, nothing, limits, lambda event, session: events.append(event)
    )
    block: Any = FakeBlock()
    session = HopSession(
        id=SESSION,
        block=block,
        epoch=1,
        max_tokens=16,
        client=client,
        previous=None,
        next=following,
        send_from=0,
        token_ids=[],
        cache=nothing,
    )
    handler.sessions[session.key] = session
    return handler, session, events


def test_a_client_that_cannot_be_told_does_not_end_the_node() -> None:
    client, following = BrokenLink(fake_peer_id(0)), BrokenLink(fake_peer_id(1))
    handler, session, _ = handler_with(client, following)
    gone: Any = following
    handler.on_lost(gone, PeerLost(following.peer, "gone"))
    assert client.num_tried == 1
    assert handler.sessions == {session.key: session}, "its own link will free it"


def test_a_client_that_is_lost_frees_its_sessions_and_no_other() -> None:
    client, other = BrokenLink(fake_peer_id(0)), BrokenLink(fake_peer_id(0))
    handler, session, events = handler_with(client, None)
    gone: Any = other
    handler.on_lost(gone, PeerLost(other.peer, "another link of the same peer"))
    assert not session.is_closed
    gone = client
    handler.on_lost(gone, PeerLost(client.peer, "gone"))
    assert session.is_closed
    assert handler.sessions == {}
    assert events == ["session_closed"]
