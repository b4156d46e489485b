"""Found on the same network by multicast DNS; here the network is loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from p2pnode.net.lan import SERVICE, Lan, heard, shown
from p2pnode.net.memory import fake_peer_id

PEER, OTHER = fake_peer_id(1), fake_peer_id(2)
LOOPBACK = "127.0.0.1"
WITHIN_S = 30.0


def at(peer: str, port: int, *hosts: str) -> tuple[str, ...]:
    return tuple(f"/ip4/{host}/tcp/{port}/p2p/{peer}" for host in hosts)


async def until(lan: Lan, holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not holds():
            lan.changed.clear()
            await lan.changed.wait()


def test_only_private_addresses_are_shown() -> None:
    mixed = (*at(PEER, 4001, "192.168.1.7", "8.8.8.8"), f"/ip6/fd00::1/tcp/4001/p2p/{PEER}")
    assert shown(mixed) == (["192.168.1.7"], 4001)
    assert shown(at(PEER, 4001, "8.8.8.8")) == ([], 0)


def test_what_is_heard_is_an_address_near_us_or_nothing() -> None:
    name = f"{PEER}.{SERVICE}"
    near = f"/ip4/{LOOPBACK}"
    assert heard(name, [LOOPBACK, "8.8.8.8"], 4001) == (
        f"{near}/tcp/4001/p2p/{PEER}",
        f"{near}/udp/4001/quic-v1/p2p/{PEER}",
    )
    for wrong in (f"nobody.{SERVICE}", SERVICE, f"{PEER}", f"{PEER}\x1b[31m.{SERVICE}"):
        assert wrong == f"{PEER}" or heard(wrong, [LOOPBACK], 4001) == ()
    for port in (None, 0, -1, 1 << 16):
        assert heard(name, [LOOPBACK], port) == ()
    assert heard(name, ["8.8.8.8", "not an address", ""], 4001) == ()


async def test_two_on_one_network_find_each_other_and_one_that_only_looks_is_not_found() -> None:
    async with Lan((LOOPBACK,)) as client:
        async with Lan((LOOPBACK,)) as one, Lan((LOOPBACK,)) as other:
            await one.show(PEER, at(PEER, 4001, LOOPBACK))
            await other.show(OTHER, at(OTHER, 4002, LOOPBACK))
            await until(client, lambda: len(client.found()) == 4)
            await until(one, lambda: bool(one.found()))
            await until(other, lambda: bool(other.found()))
            assert one.found() == heard(f"{OTHER}.{SERVICE}", [LOOPBACK], 4002)
            assert other.found() == heard(f"{PEER}.{SERVICE}", [LOOPBACK], 4001)
        await until(client, lambda: not client.found())  # they said good-bye


async def test_where_there_is_no_multicast_nobody_is_found(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Lan(("192.0.2.1",)) as lan:  # not an address of this machine
        await lan.show(PEER, at(PEER, 4001, LOOPBACK))
        await lan.look()
        assert lan.found() == ()
    assert "no multicast" in caplog.text
