"""Who may have a place, and which entries may be computed on."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from p2pnode.errors import PeerMisbehaved, PeerRefused
from p2pnode.net.memory import fake_peer_id
from p2pnode.serving.admission import Admission
from p2pnode.types import LayerRange, ModelSpec, PeerId, Sampling, Tensor
from p2pnode.wire.messages import Open
from tests.support.hostile import SESSION, hidden, ids, step

NODE, CLIENT, OTHER = fake_peer_id(0), fake_peer_id(1), fake_peer_id(2)
SPEC = ModelSpec(
    name="tiny",
    fingerprint="ab" * 32,
    family="llama",
    num_layers=9,
    hidden_size=32,
    vocab_size=512,
    max_positions=256,
)


@dataclasses.dataclass(slots=True)
class FakeLink:
    """As much of a link."""

    peer: PeerId = CLIENT


@dataclasses.dataclass(slots=True)
class FakeSession:
    """As much of a session as admission looks at."""

    max_tokens: int = 100
    layers: LayerRange = dataclasses.field(default_factory=lambda: LayerRange(0, 9))
    client: FakeLink = dataclasses.field(default_factory=FakeLink)


def admission(layers: str = "0-8", **changes: Any) -> Admission:
    numbers = {"capacity_tokens": 500, "max_sessions": 3, **changes}
    return Admission(
        peer=NODE, spec=SPEC, layers=LayerRange.parse(layers), numerics="float32", **numbers
    )


def an_open(**changes: Any) -> Open:
    good: dict[str, Any] = {
        "session": SESSION,
        "epoch": 1,
        "fingerprint": SPEC.fingerprint,
        "numerics": "float32",
        "layers": LayerRange(0, 9),
        "max_tokens": 100,
        "previous": None,
        "next": None,
        "next_addresses": (),
        "send_from": 0,
        "sampling": Sampling(),
        "token_ids": None,
    }
    return Open(**{**good, **changes})


def check(message: Open, *held: int, **changes: Any) -> None:
    sessions: Any = [FakeSession(tokens) for tokens in held]
    admission(**changes).check(message, CLIENT, sessions)


def test_what_fits_is_admitted() -> None:
    check(an_open())
    check(an_open(), 100, 100)
    check(an_open(max_tokens=256), 200, 44)
    check(an_open(layers=LayerRange(3, 5), sampling=None))
    check(an_open(layers=LayerRange(3, 9)), layers="3-8")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"fingerprint": "cd" * 32}, "another revision of tiny"),
        ({"numerics": "bfloat16"}, "computes in float32, not in bfloat16"),
        ({"numerics": "float32+fp8"}, "computes in float32"),
        ({"numerics": "float32+int8"}, "computes in float32, not in float32+int8"),
        ({"layers": LayerRange(8, 10)}, "serves layers 0-8, not 8-9"),
        ({"max_tokens": 257}, "holds 256 tokens"),
        ({"layers": LayerRange(0, 8)}, "no head for layers 0-7"),
    ],
)
def test_what_can_never_be_served_is_refused_for_good(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(PeerRefused, match=reason.replace("+", r"\+")) as caught:
        check(an_open(**changes))
    assert caught.value.retry_after_s == 0.0
    assert caught.value.peer == NODE


@pytest.mark.parametrize(
    ("held", "reason"),
    [
        ((1, 1, 1), "3 sessions are open, at most 3"),
        ((256, 200), "room for 44 tokens, not for 100"),
    ],
)
def test_what_does_not_fit_now_is_refused_for_a_while(held: tuple[int, ...], reason: str) -> None:
    with pytest.raises(PeerRefused, match=reason) as caught:
        check(an_open(), *held)
    assert caught.value.retry_after_s > 0


def test_a_session_of_fewer_layers_takes_less_room() -> None:
    part: Any = FakeSession(256, LayerRange(3, 6))
    half = an_open(layers=LayerRange(0, 3), sampling=None, max_tokens=256)

    admission(max_sessions=9).check(half, CLIENT, [part] * 4)
    with pytest.raises(PeerRefused, match="room for 220 tokens, not for 256"):
        admission(max_sessions=9).check(half, CLIENT, [part] * 5)
    with pytest.raises(PeerRefused, match="room for 158 tokens"):
        admission(max_sessions=9).check(an_open(max_tokens=256), CLIENT, [part] * 4)


def test_a_client_that_is_alone_may_have_all_the_room() -> None:
    sessions: Any = [FakeSession(100)] * 4
    admission(max_sessions=9).check(an_open(), CLIENT, sessions)


@pytest.mark.parametrize(
    ("own", "max_tokens", "reason"),
    [
        ((10, 10, 10, 10), 10, "4 sessions are yours, at most 4"),
        ((100,), 30, "26% of the room would be yours, at most 25% while others are here"),
        ((), 126, "25% of the room"),
    ],
)
def test_beside_others_a_client_has_its_share_and_no_more(
    own: tuple[int, ...], max_tokens: int, reason: str
) -> None:
    decides = admission(max_sessions=9)
    mine: Any = [FakeSession(tokens) for tokens in own]
    others: Any = [FakeSession(10, client=FakeLink(OTHER))]
    decides.check(an_open(max_tokens=max_tokens), CLIENT, mine)
    with pytest.raises(PeerRefused, match=reason) as caught:
        decides.check(an_open(max_tokens=max_tokens), CLIENT, mine + others)
    assert caught.value.retry_after_s > 0
    decides.check(an_open(max_tokens=100), CLIENT, others)


def test_room_is_counted_in_bytes() -> None:
    def cost(layers: LayerRange) -> int:
        return 1000 * len(layers) + 500  # rows on their way cost the same for any layers

    part: Any = FakeSession(100, LayerRange(8, 9))
    with pytest.raises(PeerRefused, match="room for 204 tokens"):
        small = admission(capacity_tokens=220, bytes_per_token=cost)
        small.check(an_open(max_tokens=205), CLIENT, [part])


GOOD = {
    "tokens to layer 0": (ids(0, 511), "0-8"),
    "hidden states to layer 0, from a client that embeds": (hidden(3), "0-8"),
    "hidden states to others": (hidden(3), "3-8"),
}
BAD = {
    "tokens to another layer": (ids(1), "3-8"),
    "a token beyond the vocabulary": (ids(0, 512), "0-8"),
    "a negative token": (ids(-1), "0-8"),
    "floats in a row": (Tensor("float32", (32,), bytes(128)), "0-8"),
    "too wide": (hidden(2, size=33), "0-8"),
    "too narrow": (hidden(2, size=1), "3-8"),
    "another dtype": (hidden(2, dtype="float16"), "3-8"),
    "integers": (hidden(2, dtype="int64"), "3-8"),
}


def entry_of(case: tuple[Tensor, str]) -> None:
    entry, layers = case
    session: Any = FakeSession(layers=LayerRange.parse(layers))
    admission(layers).check_entry(CLIENT, step(0, entry, layer=session.layers.start), session)


@pytest.mark.parametrize("what", GOOD)
def test_an_entry_that_the_hop_computes_on_is_taken(what: str) -> None:
    entry_of(GOOD[what])


@pytest.mark.parametrize("what", BAD)
def test_any_other_entry_is_its_senders_fault(what: str) -> None:
    with pytest.raises(PeerMisbehaved) as caught:
        entry_of(BAD[what])
    assert caught.value.peer == CLIENT
