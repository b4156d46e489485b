"""What is fuzzed: each decoder with samples of its own, built when it is asked for."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence

import numpy as np

import p2pnode.gossip.messages
import p2pnode.net.reach_messages
import p2pnode.swarm.tidings
import p2pnode.wire.messages
import p2pnode.wire.notices
from p2pnode import log
from p2pnode.config import read_peers
from p2pnode.dht import whois
from p2pnode.dht.address_book import valid_addresses
from p2pnode.dht.peers_file import GoodPeer, load_peers, save_peers
from p2pnode.dht.records import check_record, key_of, seal_announcement, shard_of, subkey_of
from p2pnode.errors import BadRecord, BadRequest, WireError
from p2pnode.gossip.digest import is_genuine, peek, read_digest, read_place, seal_digest
from p2pnode.gossip.suspicion import read_suspicion, seal_suspicion
from p2pnode.net import addresses
from p2pnode.net.memory import fake_identity
from p2pnode.numerics import INT8
from p2pnode.trust.envelope import seal, unseal
from p2pnode.types import Chosen, Coordinate, Health, LayerRange, PeerId
from p2pnode.wire.codec import decode_header, encode
from p2pnode.wire.coding import CODINGS, LOSSLESS
from p2pnode.wire.frames import Assembler, FrameWriter, end_frame
from p2pnode.wire.logprobs import pack, unpack
from p2pnode.wire.pages import PAGE_TOKENS, names_of, tokens_named, tokens_shared
from p2pnode.wire.reader import FrameReader
from p2pnode.wire.records import decode_announcement, encode_announcement
from tests.fuzz import files, model_targets, trust_targets
from tests.fuzz.mutate import mutated, mutated_fields
from tests.fuzz.running import Target
from tests.fuzz.samples import OTHER, PEER, messages
from tests.support.announcements import NOW, announcement, key_pair

KEYS = key_pair(1)
DOMAIN = "fuzz/1"
WIDTH = 64
QUIET = ("p2pnode.dht.peers_file", model_targets.QUIET)
"""Loggers that would have a line for each input."""
LOADED = (
    p2pnode.gossip.messages,
    p2pnode.net.reach_messages,
    p2pnode.swarm.tidings,
    p2pnode.wire.messages,
    p2pnode.wire.notices,
    whois,
)
"""Modules whose messages are known only when they are imported."""


def codec() -> Target:
    """The header of a message, and its body where it has a tensor."""

    def decode(data: bytes) -> object:
        pending = decode_header(data)
        return pending.finish(bytes(min(pending.num_bytes, 1 << 16)))

    headers = [encode(message)[0] for message in messages()]
    return Target(headers, decode, (WireError,), mutated_fields)


def frames() -> Target:
    """A stream, in pieces of whatever length the network makes of it."""

    def written(message: object, coding: str = "") -> bytes:
        has_rows = bool(coding) and getattr(message, "entry", None) is not None
        writer = FrameWriter(message, 7, (lambda tensor: coding) if has_rows else None)
        return b"".join(bytes(part) for turn in writer.turns() for part in turn)

    def decode(data: bytes) -> object:
        assembler = Assembler()
        assembler.lossy = INT8
        reader, at, count = FrameReader(assembler), 0, 0
        while at < len(data):
            buffer = reader.buffer()
            size = min(len(buffer), len(data) - at, 1 + (len(data) * 7 + at) % 61)
            buffer[:size] = data[at : at + size]
            at += size
            count += len(list(reader.filled(size)))
        return count

    all_kinds = messages()
    rows = all_kinds[-1]
    samples = [written(message) for message in all_kinds]
    samples += [written(rows, LOSSLESS), written(rows, INT8), samples[0] + samples[1] + end_frame()]
    return Target(samples, decode, (WireError,))


def coding() -> Target:
    """One block of coded hidden states: first byte which coding, the rest the block."""
    plain = memoryview(np.random.default_rng(0).normal(0, 1, 4 * WIDTH).astype("<f2").tobytes())
    names = (LOSSLESS, INT8)
    dtypes = ("bfloat16", "float16")

    def coded(number: int) -> bytes:
        parts = CODINGS[names[number]].encode(plain, dtypes[number], WIDTH)
        return bytes([number]) + b"".join(bytes(part) for part in parts)

    def decode(data: bytes) -> object:
        number = data[0] % 2 if data else 0
        target = memoryview(bytearray(len(plain)))
        CODINGS[names[number]].decode(memoryview(data)[1:], target, dtypes[number], WIDTH)
        return target

    return Target([coded(0), coded(1)], decode, (ValueError,))


def pages() -> Target:
    """Names of pages: whatever they are, what they share is not more than either has."""
    ours = names_of(b"k" * 32, range(4 * PAGE_TOKENS))

    def decode(data: bytes) -> object:
        shared = tokens_shared(ours, data)
        if not 0 <= shared <= min(tokens_named(ours), tokens_named(data)):
            raise AssertionError(shared)
        return shared

    return Target([ours, ours[:32], b"p" * 48], decode)


def logprobs() -> Target:
    """What a last hop says that the model thought of two tokens."""
    tops = ((5, -0.5), (7, -2.0))
    chosen = [Chosen(token_id, -0.5, tops) for token_id in (5, 6)]
    return Target([pack(chosen)], lambda data: unpack(data, (5, 6), 2, 512), (ValueError,))


def announcements() -> Target:
    """What a record says, once its signature is believed."""
    samples = [encode_announcement(announcement(KEYS))]
    return Target(samples, decode_announcement, (WireError,), mutated_fields)


def records() -> Target:
    """A record of the directory: tampered with, or signed anew after that."""
    what = announcement(KEYS)
    key, subkey = key_of(shard_of(what.peer)), subkey_of(what)
    payload = encode_announcement(what)

    def mutate(rng: random.Random, samples: Sequence[bytes]) -> bytes:
        if rng.random() < 0.8:
            return mutated(rng, samples)
        return seal(KEYS, mutated_fields(rng, [payload]), "p2pnode/announcement/1")

    def decode(data: bytes) -> object:
        return check_record(key, subkey, data, what.expires_at, now=NOW)

    return Target([seal_announcement(KEYS, what)], decode, (BadRecord,), mutate)


def envelopes() -> Target:
    """Signed envelopes."""
    samples = [seal(KEYS, b"payload", DOMAIN), seal(KEYS, b"", DOMAIN)]
    return Target(samples, lambda data: unseal(data, DOMAIN, 4096), (BadRecord,))


def digests() -> Target:
    """Health as gossip carries it."""
    alice = fake_identity(0)
    health = Health(
        peer=alice.peer,
        sequence=7,
        issued_at=1.8e9,
        num_sessions=3,
        queue_s=0.5,
        kv_free_tokens=65_000,
        step_times=((1, 0.015625, 0.03125), (64, 0.125, 0.25)),
        errors=(("out-of-memory", 2),),
        coordinate=Coordinate((0.0625, -0.03125, 0.0), 0.0078125, 0.25),
    )

    def decode(data: bytes) -> object:
        peek(data)
        return is_genuine(read_digest(data))

    return Target([seal_digest(health, alice.sign).data], decode, (WireError,))


def suspicions() -> Target:
    """Accusations."""
    alice, bob = fake_identity(0), fake_identity(1)
    sample = seal_suspicion(alice.peer, bob.peer, 7, alice.sign).data
    return Target([sample], read_suspicion, (WireError,))


def places() -> Target:
    """Network coordinates."""
    return Target([bytes(10)], read_place, (ValueError,))


def address() -> Target:
    """An address, as peers write it, and as somebody types it."""

    def decode(data: bytes) -> object:
        text = data.decode("utf-8", "surrogateescape")
        valid_addresses(PEER, [text])
        return addresses.parse(addresses.split(text)[0])

    return Target(_addresses(), decode, (ValueError,))


def peers_list() -> Target:
    """A file of addresses for ``--join``, or of the public swarm."""

    def decode(data: bytes) -> object:
        return read_peers(data.decode("utf-8", "surrogateescape"), "peers.txt")

    text = b"# ours\n\n" + b"\n".join(_addresses()) + b"  # a comment\n"
    return Target([text, *_addresses()], decode, (BadRequest,))


def _addresses() -> list[bytes]:
    kinds = ("ip4/192.0.2.7/tcp", "ip6/2001:db8::1/tcp", "dns4/example.org/tcp")
    texts = [f"/{kind}/4001/p2p/{OTHER}" for kind in kinds[:2]]
    texts.append(f"/ip4/192.0.2.7/udp/4001/quic-v1/p2p/{PEER}")
    return [text.encode() for text in texts]


def peers_file() -> Target:
    """The last good peers: whatever is in the file, a list of peers comes of it."""
    logging.getLogger(QUIET[0]).setLevel(logging.CRITICAL)
    file = files.file("peers.json")
    save_peers(file, [GoodPeer(PEER, (_addresses()[2].decode(),), 1.8e9)])
    return Target([file.read_bytes()], lambda data: load_peers(files.written(file, data)))


def names() -> Target:
    """Peer ids and ranges of layers."""

    def decode(data: bytes) -> object:
        text = data.decode("utf-8", "surrogateescape")
        return PeerId.parse(text) if len(text) > 20 else LayerRange.parse(text)

    return Target([PEER.encode(), b"0-8", b"18-26"], decode, (ValueError, BadRequest))


def escaped() -> Target:
    """A stranger's text on a terminal: one line, and only what can be seen."""

    def decode(data: bytes) -> object:
        shown = log.escape(data.decode("utf-8", "surrogateescape"))
        if not shown.isprintable() or len(shown) > log.ESCAPE_LIMIT:
            raise AssertionError(shown)
        return shown

    return Target(["ein Gerät".encode(), b"\x1b[2J\r\n", "\u202e\u200b".encode()], decode)


TARGETS: dict[str, Callable[[], Target]] = {
    made.__name__: made
    for made in (
        codec,
        frames,
        coding,
        pages,
        logprobs,
        announcements,
        records,
        envelopes,
        digests,
        suspicions,
        places,
        address,
        peers_list,
        peers_file,
        model_targets.safetensors,
        model_targets.json_file,
        model_targets.config,
        model_targets.template,
        trust_targets.warrants,
        trust_targets.news,
        trust_targets.greeting,
        trust_targets.invites,
        names,
        escaped,
    )
}
