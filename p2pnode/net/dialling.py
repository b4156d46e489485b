"""How we reach a peer whose addresses a stranger told us."""

from __future__ import annotations

import asyncio
import logging

from multiaddr import Multiaddr

from p2pnode.errors import PeerLost, PeerTimeout
from p2pnode.net import addresses, seen
from p2pnode.net.control import TIMEOUT_S, Control, Refusal
from p2pnode.net.libraries import PeerID
from p2pnode.net.transport import FOREIGN
from p2pnode.types import PeerId

log = logging.getLogger(__name__)

MAX_ADDRESSES = 16
NEAR_TIMEOUT_S = 1.5
NEAR_ANSWER_TIMEOUT_S = 0.3
FAR_ANSWER_TIMEOUT_S = 1.0
LISTENS_WITHIN_S = 2.0

_MULTISTREAM = b"\x13/multistream/1.0.0\n"
"""What both sides of a libp2p connection over TCP say first, after its length."""

_NOT_SPOKEN = "protocols not supported"

_REASONS = {
    "peer id mismatch": "another peer answers at its address",
    "dial to self": "is ourselves",
    "no addresses": "has no address that we know",
    "connection refused": "cannot be reached (connection refused)",
    "deadline exceeded": "did not answer",
    _NOT_SPOKEN: FOREIGN,
    "no route to host": "cannot be reached (no route)",
    "network is unreachable": "cannot be reached (network is unreachable)",
}


async def dial(control: Control, peer: PeerId, texts: tuple[str, ...]) -> None:
    """Make sure that a connection exists; raises PeerLost, PeerTimeout or DaemonDied.

    Near addresses (this machine, its networks) are tried first and over TCP, which costs less
    there; then the others all at once: the daemon tries QUIC a little before TCP. It does so too
    where we know the TCP port only: nodes listen on one number for both, and only who is connected
    over QUIC can be punched to (see `reach`).
    """
    near, far = _sorted(peer, texts)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await _dial(control, peer, near, far)
    except Refusal as error:
        raise PeerLost(peer, reason(error)) from error
    except TimeoutError as error:
        raise PeerTimeout(peer, f"did not answer within {TIMEOUT_S:g} s") from error


async def listens(address: str) -> bool:
    """Whether libp2p answers at a TCP address; proves nothing about who it is."""
    try:
        parsed = addresses.parse(addresses.split(address)[0])
        if addresses.is_quic(parsed):
            return False
        host = parsed.value_for_protocol(parsed.protocols()[0].name)
        async with asyncio.timeout(LISTENS_WITHIN_S):
            reader, writer = await asyncio.open_connection(host, parsed.value_for_protocol("tcp"))
            try:
                writer.write(_MULTISTREAM)
                return await reader.readexactly(len(_MULTISTREAM)) == _MULTISTREAM
            finally:
                writer.close()
    except (ValueError, OSError, EOFError, TimeoutError):
        return False


async def seen_at(control: Control) -> dict[PeerId, tuple[str, ...]]:
    """All connected peers, and where we see each. Raises DaemonDied, TimeoutError."""
    peers: dict[PeerId, dict[str, None]] = {}
    for peer_id, wheres in await control.connections():
        found = peers.setdefault(PeerId(PeerID(peer_id).to_base58()), {})
        found.update(
            (text, None) for text in map(str, map(Multiaddr, wheres)) if seen.is_form(text)
        )
    return {peer: tuple(found) for peer, found in peers.items()}


def binary(peer: PeerId) -> bytes:
    """A peer id as the daemon wants it."""
    data: bytes = PeerID.from_base58(peer).to_bytes()
    return data


def is_foreign(error: Exception) -> bool:
    """Whether the daemon said that a peer is there, and does not speak a protocol of ours."""
    return _NOT_SPOKEN in str(error)


def reason(error: Exception) -> str:
    """What the daemon said, in a few words of ours where we know them."""
    text = str(error)
    for marker, words in _REASONS.items():
        if marker in text:
            return words
    return " ".join(text.split())[:120]


async def _dial(
    control: Control, peer: PeerId, near: list[Multiaddr], far: list[Multiaddr]
) -> None:
    peer_id = binary(peer)
    if peer_id in await control.connected_peers():
        return
    answering = [address.to_bytes() for address in near if await _answers(address)]
    if near and not answering and not far:
        raise PeerLost(peer, "cannot be reached (connection refused)")
    if answering and far:
        try:
            return await control.connect(peer_id, answering, NEAR_TIMEOUT_S)
        except (Refusal, TimeoutError) as error:
            log.debug("not near: peer=%s error=%s", peer.short, reason(error))
    far = await _with_quic(far)
    await control.connect(peer_id, [address.to_bytes() for address in far] or answering)


def _sorted(peer: PeerId, texts: tuple[str, ...]) -> tuple[list[Multiaddr], list[Multiaddr]]:
    """Near addresses without needless QUIC, and all others. PeerLost when one is not the peer's."""
    near: list[Multiaddr] = []
    far: list[Multiaddr] = []
    for text in texts[:MAX_ADDRESSES]:
        try:
            where, named = addresses.split(text)
        except ValueError as error:
            log.debug("address skipped: peer=%s error=%s", peer.short, error)
            continue
        if named not in (None, peer):
            raise PeerLost(peer, "its address names another peer")
        parsed = addresses.parse(where)
        (near if addresses.is_near(parsed) else far).append(parsed)
    tcp = [address for address in near if not addresses.is_quic(address)]
    return tcp or near, far


async def _with_quic(far: list[Multiaddr]) -> list[Multiaddr]:
    """Addresses, with QUIC on the same numbers where only TCP is known and somebody is there."""
    is_known = not far or any(map(addresses.is_quic, far))
    if is_known or not await _answers(far[0], FAR_ANSWER_TIMEOUT_S):
        return far
    return [addresses.parse(f"{each}/quic-v1".replace("/tcp/", "/udp/")) for each in far] + far


async def _answers(where: Multiaddr, within_s: float = NEAR_ANSWER_TIMEOUT_S) -> bool:
    """Whether somebody listens at a TCP address.

    A closed TCP port says at once that nobody is there. The daemon would not: it remembers the
    peer's QUIC addresses, dials them as well, and a closed QUIC port only shows by silence.
    """
    if addresses.is_quic(where):
        return True
    host = where.value_for_protocol(where.protocols()[0].name)
    try:
        async with asyncio.timeout(within_s):
            _, writer = await asyncio.open_connection(host, where.value_for_protocol("tcp"))
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
