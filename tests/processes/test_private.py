"""A private swarm of real processes, and those who are not in it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_noise_key_pair
from libp2p.identity.identify.identify import ID as IDENTIFY
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.utils.varint import read_length_prefixed_protobuf
from multiaddr import Multiaddr

from p2pnode.config import Home
from p2pnode.dht.backend import DHTID, P2PHandlerError, dht_pb2
from p2pnode.dht.ids import to_hivemind
from p2pnode.dht.records import ALL_KEYS
from p2pnode.dht.whois import WHOIS
from p2pnode.errors import PeerForeign, PeerLost
from p2pnode.net.gate import private
from p2pnode.net.hello import write_hello
from p2pnode.net.identity import Identity
from p2pnode.net.libp2p_transport import P2PTransport
from p2pnode.net.reach_messages import REACH
from p2pnode.swarm.membership import memberships
from p2pnode.swarm.tidings import TIDINGS
from p2pnode.wire.messages import CHAIN, CONTROL
from tests.support.commands import json_lines, run
from tests.support.swarms import Served, served, short_home

pytestmark = pytest.mark.processes

NAME = "the-quiet-club"
STREAMS = (CHAIN, CONTROL, REACH, WHOIS, TIDINGS)


@dataclass(frozen=True)
class Club:
    home: Path
    """The founder's."""
    node: Served

    def swarm(self, command: str, *arguments: str) -> dict[str, Any]:
        """What ``p2pnode swarm`` answers in the founder's home."""
        made = run("swarm", command, *arguments, "--home", str(self.home), "--json")
        assert made.returncode == 0, made.stderr
        answer: dict[str, Any] = json.loads(made.stdout)
        return answer

    def invite(self, folder: Path, *options: str) -> tuple[Path, dict[str, Any]]:
        """A file with a new invite, and what was said of it."""
        told = self.swarm("invite", *options)
        file = folder / f"{told['id']}.invite"
        file.touch(mode=0o600)
        file.write_text(told["invite"])
        return file, told


@pytest.fixture(scope="module")
def club() -> Iterator[Club]:
    with short_home() as home:
        made = run("swarm", "create", NAME, "--home", str(home), "--json")
        assert made.returncode == 0, made.stderr
        with served(home, "0-26", options=("--invite", NAME)) as (node,):
            yield Club(home, node)


def ask(home: Path, *options: str) -> Any:
    return run("generate", "Once", "--max-tokens", "4", "--home", str(home), "--json", *options)


def test_an_invite_alone_is_enough_to_generate_until_it_is_revoked(
    club: Club, tmp_path: Path
) -> None:
    file, told = club.invite(tmp_path, "--use", "--expires", "1h")
    home = tmp_path / "home"
    made = ask(home, "--invite", str(file))
    assert made.returncode == 0, made.stderr
    assert club.swarm("show")["swarms"][0]["used"][-1]["id"] == told["id"]
    assert club.swarm("revoke", told["id"])["num_told"] == 1
    made = ask(home, "--invite", NAME)
    assert made.returncode == 3
    assert json_lines(made.stdout)[-1]["kind"] == "NotMember"
    assert "revoked" in made.stderr
    assert len(made.stderr.splitlines()) == 1
    assert told["invite"][20:60] not in made.stderr


def test_who_has_no_invite_is_told_what_is_missing(club: Club, tmp_path: Path) -> None:
    made = ask(tmp_path, "--join", club.node.address)
    assert made.returncode == 3
    assert "private swarm (see --invite)" in made.stderr


def test_a_stranger_learns_nothing_of_the_swarm_by_identify(club: Club) -> None:
    (member,) = memberships(Home(club.home))
    swarm = member.warrant.swarm
    said = trio.run(_identify, club.node.address)
    assert b"/p2pnode/private/chain/1" in said
    for secret in (NAME.encode(), swarm, swarm.hex().encode(), swarm.hex()[:16].encode()):
        assert secret not in said


async def _identify(address: str) -> bytes:
    keys = create_new_key_pair()
    noise = NoiseTransport(keys, noise_privkey=create_new_noise_key_pair().private_key)
    host = new_host(key_pair=keys, sec_opt={NOISE: noise}, muxer_preference="YAMUX")
    with trio.fail_after(60):
        async with host.run(listen_addrs=[]):
            node = info_from_p2p_addr(Multiaddr(address))
            await host.connect(node)
            stream = await host.new_stream(node.peer_id, [IDENTIFY])
            data: bytes = await read_length_prefixed_protobuf(stream, use_varint_format=True)
            await host.disconnect(node.peer_id)
            return data


async def test_a_stranger_on_a_p2pd_of_its_own_gets_no_byte_and_no_answer(club: Club) -> None:
    with short_home() as run_folder:
        async with P2PTransport(Identity.ephemeral(), run_folder, is_client=True) as stranger:
            peer = club.node.peer
            await stranger.connect(peer, (club.node.address,))
            for protocol in STREAMS:
                with pytest.raises(PeerForeign):
                    await stranger.open_stream(peer, protocol)
                stream = await stranger.open_stream(peer, private(protocol))
                write_hello(stream, bytes(16), credentials=b"let me in")
                async with asyncio.timeout(5):
                    with pytest.raises(PeerLost):
                        await stream.read_exactly(1)
                stream.close()
            key = DHTID.generate(source=ALL_KEYS[0]).to_bytes()
            store = dht_pb2.StoreRequest(
                keys=[key], subkeys=[b"x"], values=[b"x"], expiration_time=[1.0], in_cache=[False]
            )
            for name, request, answer in (
                ("ping", dht_pb2.PingRequest(), dht_pb2.PingResponse),
                ("store", store, dht_pb2.StoreResponse),
                ("find", dht_pb2.FindRequest(keys=[key]), dht_pb2.FindResponse),
                ("fetch", dht_pb2.FindRequest(keys=[bytes(8)]), dht_pb2.FindResponse),
            ):
                with pytest.raises(P2PHandlerError, match="no member"):
                    await stranger.p2p.call_protobuf_handler(
                        to_hivemind(peer), f"P2PNodeDirectory2.rpc_{name}", request, answer
                    )
