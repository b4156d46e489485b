"""The codec: what it writes it reads, and nothing else."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2pnode.errors import WireError
from p2pnode.types import LayerRange, PeerId, Sampling, Tensor
from p2pnode.wire.codec import MAX_HEADER_BYTES, decode, encode, kinds
from p2pnode.wire.messages import Fault, Open, Ping, Step
from p2pnode.wire.records import decode_announcement

SESSION = b"s" * 16
PEER = PeerId("12D3KooW" + "A" * 44)
STEP = Step(
    session=SESSION, layer=3, epoch=1, position=7, entry=Tensor("float32", (2, 3), bytes(24))
)
OPEN = Open(
    session=SESSION,
    epoch=1,
    fingerprint="f" * 64,
    numerics="float32",
    layers=LayerRange(3, 6),
    max_tokens=64,
    previous=None,
    next=PEER,
    next_addresses=("/ip4/127.0.0.1/tcp/4001",),
    send_from=0,
    sampling=Sampling(
        temperature=0.5,
        seed=3,
        logit_bias=((7, -1.5), (9, 2.0)),
        num_logprobs=4,
        constraint='{"type": "object"}',
    ),
    token_ids=Tensor("int64", (2,), bytes(16)),
)


def changed(message: object, **fields: Any) -> bytes:
    """The header of a message with some fields replaced on the wire."""
    header = msgpack.unpackb(encode(message)[0])
    return bytes(msgpack.packb({**header, **fields}))


def sampled(**fields: Any) -> bytes:
    """The header of an `Open` with other sampling parameters on the wire."""
    sampling = msgpack.unpackb(encode(OPEN)[0])["sampling"]
    return changed(OPEN, sampling={**sampling, **fields})


@pytest.mark.parametrize("message", [STEP, OPEN, Ping(number=2)])
def test_a_message_is_read_as_it_was_written(message: object) -> None:
    header, body = encode(message)
    assert decode(header, body) == message


def test_the_tensor_is_not_copied_into_the_header() -> None:
    hidden = Tensor("float32", (4, 2048), bytes(4 * 2048 * 4))
    header, body = encode(dataclasses.replace(STEP, entry=hidden))
    assert len(header) < 128
    assert body.obj is hidden.data


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        (changed(STEP, kind="stop"), "unknown kind"),
        (changed(STEP, kind=["step"]), "unknown kind"),
        (changed(STEP, extra=1), "extra"),
        (msgpack.packb({"kind": "ping"}), "number"),
        (changed(STEP, position=True), "step.position"),
        (changed(STEP, position=-1), "step.position"),
        (changed(STEP, position=1 << 63), "step.position"),
        (changed(STEP, position=1.0), "step.position"),
        (changed(STEP, session=b"short"), "session id"),
        (changed(STEP, session="s" * 16), "step.session"),
        (changed(STEP, entry=["float64", [2, 3]]), "dtype"),
        (changed(STEP, entry=["float32", [2, 4]]), "24 bytes"),
        (changed(STEP, entry=["float32", [2, -3]]), "step.entry"),
        (changed(STEP, entry=["float32", [1] * 65]), "step.entry"),
        (changed(STEP, entry=None), "step.entry"),
        (changed(OPEN, layers=[6, 3]), "open.layers"),
        (changed(OPEN, layers=[3]), "open.layers"),
        (changed(OPEN, layers=[3, 3]), "empty"),
        (changed(OPEN, next="12D3KooWxyz"), "open.next"),
        (changed(OPEN, next_addresses=["a"] * 65), "open.next_addresses"),
        (changed(OPEN, fingerprint="f" * 2049), "open.fingerprint"),
        (changed(OPEN, sampling={"temperature": 0.0}), "open.sampling"),
        (sampled(logit_bias=[[5, 1]]), "open.sampling"),
        (sampled(logit_bias=[[5, 1.0, 2.0]]), "open.sampling"),
        (sampled(logit_bias=[[5, 101.0]]), "open.sampling"),
        (sampled(logit_bias=[[5, 1.0]] * 2), "open.sampling"),
        (sampled(logit_bias=[[n, 1.0] for n in range(301)]), "at most 300"),
        (sampled(presence_penalty=3.0), "open.sampling"),
        (sampled(num_logprobs=True), "open.sampling"),
        (sampled(num_logprobs=21), "open.sampling"),
        (sampled(constraint="x" * 16385), "at most 16384 bytes"),
        (sampled(constraint=None), "open.sampling"),
        (changed(OPEN, num_prompt=-1), "open.num_prompt"),
        (changed(OPEN, pools=1), "open.pools"),
        (b"", "not msgpack"),
        (b"\xc1", "not msgpack"),
        (encode(STEP)[0] + b"\0", "not msgpack"),
        (b"\x91" * 5000, "not msgpack"),
        (bytes(MAX_HEADER_BYTES + 1), "at most"),
    ],
)
def test_what_is_not_exactly_a_message_is_refused_and_named(header: bytes, complaint: str) -> None:
    body = bytes(24) if b"step" in header else bytes(16)
    with pytest.raises(WireError, match=complaint):
        decode(header, body)


def test_sampling_out_of_range_is_refused() -> None:
    sampling = dataclasses.asdict(Sampling()) | {"temperature": -1.0}
    with pytest.raises(WireError, match="temperature"):
        decode(changed(OPEN, sampling=sampling), bytes(16))


def test_token_ids_of_another_type_are_refused() -> None:
    with pytest.raises(WireError, match="int64"):
        decode(changed(OPEN, token_ids=["float32", [4]]), bytes(16))


def test_bytes_beside_a_message_without_a_tensor_are_refused() -> None:
    with pytest.raises(WireError, match="without a tensor"):
        decode(encode(Ping(number=1))[0], b"x")


def test_a_fault_of_an_unknown_kind_is_refused() -> None:
    fault = Fault(session=SESSION, layer=0, epoch=0, fault="gap", blamed=None, detail="")
    with pytest.raises(WireError, match="boom"):
        decode(changed(fault, fault="boom"))


def test_a_hop_is_asked_for_tokens_or_for_their_mean() -> None:
    with pytest.raises(WireError, match="exclude each other"):
        decode(changed(OPEN, pools=True), bytes(16))


def test_the_largest_request_fits_into_a_header() -> None:
    largest = Sampling(
        logit_bias=tuple(((1 << 31) - 1 - n, -99.5) for n in range(300)),
        constraint="ä" * 8192,
    )
    pages, addresses = bytes(2048), ("/ip4/203.0.113.7/udp/4001/quic-v1" * 2,) * 16
    asked = dataclasses.replace(OPEN, sampling=largest, pages=pages, next_addresses=addresses)
    header, body = encode(asked)
    assert decode(header, body) == asked


sampling_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 40), 1 << 63),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.lists(st.one_of(st.integers(-5, 1 << 40), st.floats()), max_size=3), max_size=4),
)


@settings(suppress_health_check=[HealthCheck.too_slow])  # the first one, on a busy machine
@given(st.dictionaries(st.sampled_from(sorted(Sampling.__annotations__)), sampling_values))
def test_sampling_is_read_or_refused(fields: dict[str, Any]) -> None:
    try:
        header = sampled(**fields)
        asked = decode(header, bytes(16))
    except WireError:
        return
    assert msgpack.unpackb(encode(asked)[0]) == msgpack.unpackb(header)


def test_a_header_longer_than_the_limit_is_not_sent() -> None:
    with pytest.raises(WireError, match="at most"):
        encode(dataclasses.replace(OPEN, next_addresses=("x" * 2048,) * 17))


@given(st.binary(max_size=300), st.binary(max_size=40))
def test_garbage_never_raises_anything_but_a_wire_error(header: bytes, body: bytes) -> None:
    try:
        decode(header, body)
    except WireError:
        return
    raise AssertionError("random bytes were taken for a message")


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.text()
    | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(st.data())
def test_a_header_of_the_right_fields_with_odd_values_is_read_or_refused(
    data: st.DataObject,
) -> None:
    kind = data.draw(st.sampled_from(kinds()))
    fields = {name: data.draw(values) for name in kind.readers}
    header = bytes(msgpack.packb({"kind": kind.name, **fields}))
    try:
        decode(header)
    except WireError as error:
        assert kind.name in str(error) or "at most" in str(error)


@given(st.binary(max_size=200))
def test_no_random_bytes_are_an_announcement(data: bytes) -> None:
    with pytest.raises(WireError):
        decode_announcement(data)
