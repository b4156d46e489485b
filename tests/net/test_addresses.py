"""Addresses that strangers wrote, and our own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.errors import BadRequest
from p2pnode.net.addresses import dialable, is_near, is_quic, parse, split
from p2pnode.net.memory import fake_peer_id

PEER = fake_peer_id(1)


def test_the_peer_is_taken_off_the_end() -> None:
    assert split(f"/ip4/192.0.2.7/tcp/4001/p2p/{PEER}") == ("/ip4/192.0.2.7/tcp/4001", PEER)
    assert split("/dns4/a.example/udp/1/quic-v1") == ("/dns4/a.example/udp/1/quic-v1", None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "192.0.2.7:4001",
        "/ip4/192.0.2.7",
        "/ip4/192.0.2.7/tcp/99999",
        "/ip4/192.0.2.777/tcp/1",
        "/ip4/192.0.2.7/tcp/1/ws",
        "/ip4/192.0.2.7/udp/1",
        "/unix/etc/passwd",
        "/dns4/a\x1b[31m/tcp/1",
        "/ip4/192.0.2.7/tcp/1/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
        f"/ip4/192.0.2.7/tcp/1/p2p/{PEER}/p2p-circuit/p2p/{PEER}",
        "/dns4/" + "a" * 400 + "/tcp/1",
    ],
)
def test_what_we_cannot_dial_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        split(text)


@given(st.text(max_size=60) | st.from_regex(r"(/(ip4|ip6|tcp|udp|p2p|dns4)/[^/]{0,9}){1,4}"))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        where, _ = split(text)
    except ValueError:
        return
    assert parse(where)


def test_announced_addresses_come_first_and_all_name_us() -> None:
    announced = "/dns4/a.example/tcp/4001"
    ours = dialable(PEER, "127.0.0.1", 4002, [announced, f"{announced}/p2p/{PEER}"])
    assert ours == (
        f"/dns4/a.example/tcp/4001/p2p/{PEER}",
        f"/ip4/127.0.0.1/tcp/4002/p2p/{PEER}",
        f"/ip4/127.0.0.1/udp/4002/quic-v1/p2p/{PEER}",
    )


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_all_hosts_are_the_interfaces_and_loopback_only_where_there_is_no_other(
    host: str,
) -> None:
    ours = dialable(PEER, host, 4001, [])
    hosts = [split(address)[0].split("/")[2] for address in ours]
    assert not {"0.0.0.0", "::"} & set(hosts)
    loopback = "127.0.0.1" if host == "0.0.0.0" else "::1"
    assert loopback not in hosts or set(hosts) == {loopback}


@pytest.mark.parametrize(
    "announce", ["a.example", f"/ip4/192.0.2.7/tcp/1/p2p/{fake_peer_id(2)}", "/ip4/1.2.3.4"]
)
def test_announcing_nonsense_is_the_callers_fault(announce: str) -> None:
    with pytest.raises(BadRequest):
        dialable(PEER, "127.0.0.1", 1, [announce])


def test_a_host_that_is_no_ip_address_is_the_callers_fault() -> None:
    with pytest.raises(BadRequest, match="not an IP address"):
        dialable(PEER, "localhost", 1, [])


def test_near_is_this_machine_and_its_networks() -> None:
    assert is_near(parse("/ip4/127.0.0.9/tcp/1"))
    assert is_near(parse("/ip6/::1/tcp/1"))
    assert not is_near(parse("/ip4/8.8.8.8/tcp/1"))
    assert not is_near(parse("/dns4/localhost/tcp/1"))
    assert is_quic(parse("/ip4/127.0.0.1/udp/1/quic-v1"))
    assert not is_quic(parse("/ip4/127.0.0.1/tcp/1"))
