"""The gate of a private swarm, and what its parts say."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.errors import BadWarrant, NotAdmitted, PeerForeign, PeerLost, PeerTimeout, Unwelcome
from p2pnode.lab.members import Founder
from p2pnode.lab.overlay import EPOCH_S
from p2pnode.net.gate import MAX_GREETING_PER_PEER, Gate, key_of
from p2pnode.net.memory import Line, MemoryNetwork, fake_identity
from p2pnode.net.reach import Reach
from p2pnode.net.transport import ByteStream
from p2pnode.trust.grants import Right
from p2pnode.trust.greeting import MAX_BYTES, NONCE_BYTES, Denial
from p2pnode.trust.guard import CLOCKS_DIFFER_S, MAX_GREETINGS, MAX_MEMBERS, Guard
from p2pnode.trust.news import News

FOUNDER = Founder()
PROTOCOL, NONCE = "/p2pnode/whois/1", bytes(NONCE_BYTES)


def guard(
    number: int, *, right: Right = Right.SERVE, ahead_s: float = 0.0, **options: Any
) -> Guard:
    identity, founder = fake_identity(number), options.pop("founder", FOUNDER)
    warrant = founder.grant(identity, right, **options)
    news = News(warrant.swarm)
    return Guard(warrant, identity.sign, news, wall_clock=lambda: EPOCH_S + 10 + ahead_s)


A, B = (key_of(fake_identity(number).peer) for number in (1, 2))


def test_members_admit_each_other_and_remember_it() -> None:
    one, two = guard(1), guard(2)
    two.admit(A, PROTOCOL, NONCE, one.greet(B, PROTOCOL, NONCE))
    one.admit(B, PROTOCOL, b"n" * 16, two.greet(A, PROTOCOL, b"n" * 16, NONCE), answers=NONCE)
    assert one.member(B, serves=True) == two.warrant
    assert two.member(A) == one.warrant


def test_a_greeting_is_good_on_one_stream_between_two_peers_only() -> None:
    one, two, said = guard(1), guard(2), guard(1).greet(B, PROTOCOL, NONCE)
    for key, protocol, nonce, answers in (
        (key_of(fake_identity(3).peer), PROTOCOL, NONCE, b""),
        (A, "/p2pnode/chain/1", NONCE, b""),
        (A, PROTOCOL, b"m" * 16, b""),
        (A, PROTOCOL, NONCE, b"m" * 16),
    ):
        with pytest.raises(BadWarrant):
            two.admit(key, protocol, nonce, said, answers=answers)
    with pytest.raises(BadWarrant):
        guard(3).admit(A, PROTOCOL, NONCE, said)
    with pytest.raises(BadWarrant):
        one.admit(B, PROTOCOL, NONCE, said)  # back to who said it
    two.admit(A, PROTOCOL, NONCE, said)
    with pytest.raises(NotAdmitted, match="used before"):
        two.admit(A, PROTOCOL, NONCE, said)


@pytest.mark.parametrize("ahead_s", [-1.5 * CLOCKS_DIFFER_S, 1.5 * CLOCKS_DIFFER_S])
def test_an_old_greeting_and_a_wrong_clock_are_told(ahead_s: float) -> None:
    with pytest.raises(NotAdmitted, match="clocks"):
        guard(2).admit(A, PROTOCOL, NONCE, guard(1, ahead_s=ahead_s).greet(B, PROTOCOL, NONCE))


def test_greetings_are_bounded() -> None:
    one, two = guard(1), guard(2)
    for number in range(MAX_GREETINGS):
        nonce = number.to_bytes(NONCE_BYTES, "big")
        two._note_nonce(A, nonce, two.now())
    with pytest.raises(NotAdmitted, match="too many"):
        two.admit(A, PROTOCOL, b"x" * 16, one.greet(B, PROTOCOL, b"x" * 16))


@pytest.mark.parametrize("denial", Denial)
def test_a_member_is_told_why_it_is_not_let_in(denial: Denial) -> None:
    one, two = guard(1), guard(2)
    said = two.deny(A, PROTOCOL, b"n" * 16, NONCE, NotAdmitted(denial.words, denial))
    with pytest.raises(Unwelcome, match=denial.words[:12]):
        one.admit(B, PROTOCOL, b"n" * 16, said, answers=NONCE)


def test_a_stranger_cannot_tell_what_a_greeting_says() -> None:
    said = guard(1).greet(B, PROTOCOL, NONCE)
    for part in (FOUNDER.warrant.swarm, A, B, guard(1).warrant.encode()[:32]):
        assert part not in said
    with pytest.raises(BadWarrant, match="stranger"):
        guard(2, founder=Founder(901)).admit(A, PROTOCOL, NONCE, said)


@given(st.binary(max_size=MAX_BYTES + 2))
def test_any_other_bytes_are_a_strangers(said: bytes) -> None:
    with pytest.raises(BadWarrant):
        guard(2).admit(A, PROTOCOL, NONCE, said)


@given(st.integers(0, 8 * len(guard(1).greet(B, PROTOCOL, NONCE)) - 1))
def test_no_bit_of_a_greeting_can_be_changed(bit: int) -> None:
    said = bytearray(guard(1).greet(B, PROTOCOL, NONCE))
    said[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BadWarrant):
        guard(2).admit(A, PROTOCOL, NONCE, bytes(said))


# --- streams


async def _listen(stream: ByteStream) -> None:
    stream.write(await stream.read_exactly(1))
    await stream.drain()
    await stream.read_exactly(1)


@pytest.mark.virtual_time
async def test_private_and_public_peers_say_that_they_do_not_mix() -> None:
    network = MemoryNetwork()
    inside, outside = fake_identity(1), fake_identity(2)
    async with network.transport(inside.peer) as ground, network.transport(outside.peer) as public:
        gate = Gate(ground, guard(1))
        await gate.serve(PROTOCOL, _listen)
        await public.serve(PROTOCOL, _listen)
        await gate.connect(outside.peer, public.addresses)
        with pytest.raises(PeerForeign, match="in no private swarm"):
            await gate.open_stream(outside.peer, PROTOCOL)
        with pytest.raises(PeerForeign, match="in a private swarm"):
            await public.open_stream(inside.peer, PROTOCOL)


@pytest.mark.virtual_time
async def test_a_peer_of_another_swarm_hangs_up_without_a_word() -> None:
    network = MemoryNetwork()
    async with (
        network.transport(fake_identity(1).peer) as one,
        network.transport(fake_identity(2).peer) as two,
    ):
        ours, theirs = Gate(one, guard(1)), Gate(two, guard(2, founder=Founder(901)))
        await theirs.serve(PROTOCOL, _listen)
        await ours.connect(two.peer, two.addresses)
        with pytest.raises(PeerForeign, match="another swarm"):
            await ours.open_stream(two.peer, PROTOCOL)


@pytest.mark.virtual_time
async def test_who_says_nothing_is_hung_up_on_and_cannot_keep_others_out() -> None:
    network = MemoryNetwork()
    async with (
        network.transport(fake_identity(1).peer) as one,
        network.transport(fake_identity(2).peer) as two,
        network.transport(fake_identity(3).peer) as silent,
    ):
        ours, theirs = Gate(one, guard(1)), Gate(two, guard(2))
        await theirs.serve(PROTOCOL, _listen)
        await silent.connect(two.peer, two.addresses)
        name = PROTOCOL.replace("/p2pnode/", "/p2pnode/private/")
        streams = [
            await silent.open_stream(two.peer, name) for _ in range(2 * MAX_GREETING_PER_PEER)
        ]
        await ours.connect(two.peer, two.addresses)
        member = await ours.open_stream(two.peer, PROTOCOL)
        member.write(b"!")
        assert await member.read_exactly(1) == b"!"
        await asyncio.sleep(4)
        for stream in streams:
            with pytest.raises(PeerLost):
                await stream.read_exactly(1)


@pytest.mark.virtual_time
async def test_who_accepts_a_stream_and_does_not_greet_is_late() -> None:
    network = MemoryNetwork()

    async def silent(stream: ByteStream) -> None:
        await asyncio.Event().wait()

    async with (
        network.transport(fake_identity(1).peer) as one,
        network.transport(fake_identity(2).peer) as two,
    ):
        await two.serve(PROTOCOL.replace("/p2pnode/", "/p2pnode/private/"), silent)
        gate = Gate(one, guard(1))
        await gate.connect(two.peer, two.addresses)
        with pytest.raises(PeerTimeout, match="greet"):
            await gate.open_stream(two.peer, PROTOCOL)


def test_who_had_to_be_forgotten_is_cut_off_rather_than_never_looked_at_again() -> None:
    two = guard(2)
    two.admit(A, PROTOCOL, NONCE, guard(1).greet(B, PROTOCOL, NONCE))
    warrant = two.warrant
    for number in range(MAX_MEMBERS - 1):
        two._members[number.to_bytes(32, "big")] = warrant
    third = key_of(fake_identity(3).peer)
    two.admit(third, PROTOCOL, NONCE, guard(3).greet(B, PROTOCOL, NONCE))
    assert two.lapsed() == [A]
    assert two.lapsed() == []


@pytest.mark.virtual_time
async def test_a_member_that_cannot_be_dialled_is_reached_with_members_help_only() -> None:
    network = MemoryNetwork(line=Line(latency_s=0.02))
    async with AsyncExitStack() as stack:
        found: list[Reach] = []
        for number in (1, 2, 3):
            ground = await stack.enter_async_context(network.transport(fake_identity(number).peer))
            reach = Reach(Gate(ground, guard(number)))
            found.append(await stack.enter_async_context(reach))
            await reach.serve(PROTOCOL, _listen)
        asker, hidden, helper = found
        network.hide(hidden.peer)
        strangers = [
            await stack.enter_async_context(network.transport(fake_identity(number).peer))
            for number in range(10, 40)
        ]
        for stranger in strangers:
            await stranger.connect(helper.peer, helper.addresses)
            await stranger.connect(asker.peer, asker.addresses)
        for member in (hidden, asker):
            await member.connect(helper.peer, helper.addresses)
            await member.open_stream(helper.peer, PROTOCOL)
        began = asyncio.get_running_loop().time()
        await asker.connect(hidden.peer, ())
        stream = await asker.open_stream(hidden.peer, PROTOCOL)
        stream.write(b"!")
        assert await stream.read_exactly(1) == b"!"
        assert asyncio.get_running_loop().time() - began < 1.0
