"""The bytes of a health digest: packed tightly, signed by the peer that it describes.

Big endian: version, public key (32), sequence, time in ms, figures, coordinate, step times, errors,
and an Ed25519 signature (64) over the domain and all before it; at most `MAX_DIGEST_BYTES`. Times
and coordinates are half floats (3 digits): more would be noise.

To read is not to believe: `peek` says whether a digest can be news, `read_digest` checks its form,
`is_genuine` its signature, which costs a hundred times as much.
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass

from p2pnode.errors import WireError
from p2pnode.net.identity import peer_of, public_key
from p2pnode.trust.signatures import SIGNATURE_BYTES, is_signed
from p2pnode.types import Coordinate, Health, PeerId

MAX_DIGEST_BYTES = 320
MAX_SEQUENCE = (1 << 48) - 1
KEY_BYTES = 8
"""So much of a public key names a peer within gossip's own messages."""
MAX_STEP_TIMES = 4
MAX_ERRORS = 4
MAX_KIND_CHARS = 24
MAX_TIME_S = 60_000.0
MAX_COORDINATE_S = 10.0

_DOMAIN = b"p2pnode/health/1\0"
_VERSION = 1
_HEAD = struct.Struct(">B32sQQ")
_BODY = struct.Struct(">BHHeIBB5eB")
_PLACE = struct.Struct(">5e")
PLACE_BYTES = _PLACE.size
_STEP_TIME = struct.Struct(">Hee")
_DRAINING = 1
_SHARE = 255
_KIND_CHARS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")

Sign = Callable[[bytes], bytes]

key_of = functools.lru_cache(maxsize=16384)(public_key)
"""The 32-byte public key of a peer id."""
peer_of_key = functools.lru_cache(maxsize=16384)(peer_of)


@dataclass(frozen=True, slots=True)
class Digest:
    """A health and the bytes that say it."""

    health: Health
    data: bytes

    @property
    def key(self) -> bytes:
        """What names its peer in messages."""
        return self.data[1 : 1 + KEY_BYTES]


def peek(data: bytes) -> tuple[bytes, int]:
    """The short key of the peer and the sequence, unchecked; raises WireError when too short."""
    if not _HEAD.size <= len(data) <= MAX_DIGEST_BYTES:
        raise WireError(f"digest of {len(data)} bytes, {_HEAD.size} to {MAX_DIGEST_BYTES}")
    _, key, sequence, _ = _HEAD.unpack_from(data)
    return key[:KEY_BYTES], sequence


def seal_digest(health: Health, sign: Sign) -> Digest:
    """Pack and sign our own health; what does not fit into its field is cut to the most it holds.

    The digest's health is what others will read.
    """
    body = _pack(health)
    return read_digest(body + sign(_DOMAIN + body))


def is_genuine(digest: Digest) -> bool:
    """Whether the peer itself has signed it."""
    body, signature = digest.data[:-SIGNATURE_BYTES], digest.data[-SIGNATURE_BYTES:]
    return is_signed(_DOMAIN + body, signature, key_of(digest.health.peer))


def read_digest(data: bytes) -> Digest:
    """Check everything but the signature; raises WireError."""
    peek(data)
    version, key, sequence, issued_ms = _HEAD.unpack_from(data)
    if version != _VERSION or sequence > MAX_SEQUENCE or issued_ms > MAX_SEQUENCE:
        raise WireError(f"digest of version {version}, sequence {sequence}, time {issued_ms}")
    try:
        health = _unpack(data, peer_of_key(key), sequence, issued_ms / 1000)
    except (struct.error, ValueError) as error:
        raise WireError(f"digest: {error}") from error
    return Digest(health, data)


def pack_place(coordinate: Coordinate) -> bytes:
    """A coordinate alone, within bounds."""
    parts = (min(max(part, -MAX_COORDINATE_S), MAX_COORDINATE_S) for part in coordinate.place)
    return _PLACE.pack(
        *parts, min(coordinate.height_s, MAX_COORDINATE_S), min(coordinate.error, 1.0)
    )


def read_place(data: bytes) -> Coordinate:
    """The inverse; raises ValueError on anything out of bounds."""
    if len(data) != PLACE_BYTES:
        raise ValueError(f"a place has {PLACE_BYTES} bytes, not {len(data)}")
    return _coordinate(*_PLACE.unpack(data))


def _pack(health: Health) -> bytes:
    errors, times = health.errors[:MAX_ERRORS], health.step_times[:MAX_STEP_TIMES]
    parts = [
        _HEAD.pack(_VERSION, key_of(health.peer), health.sequence, round(health.issued_at * 1000)),
        _BODY.pack(
            _DRAINING if health.is_draining else 0,
            min(health.num_sessions, 0xFFFF),
            min(health.queue_depth, 0xFFFF),
            _time(health.queue_s),
            min(health.kv_free_tokens or 0, 0xFFFF_FFFF),
            _share(health.vram_used),
            _share(health.device_load),
            *_PLACE.unpack(pack_place(health.coordinate)),
            len(times) << 4 | len(errors),
        ),
    ]
    for tokens, p50_s, p95_s in times:
        parts.append(_STEP_TIME.pack(min(tokens, 0xFFFF), _time(p50_s), _time(p95_s)))
    for kind, count in errors:
        name = _word(kind)
        parts.append(struct.pack(">B", len(name)) + name + struct.pack(">H", min(count, 0xFFFF)))
    return b"".join(parts)


def _word(kind: str) -> bytes:
    small = kind[:MAX_KIND_CHARS].lower()
    return ("".join(c if c in _KIND_CHARS else "-" for c in small) or "-").encode()


def _unpack(data: bytes, peer: PeerId, sequence: int, issued_at: float) -> Health:
    flags, sessions, depth, queue_s, kv_free, vram, load, *rest = _BODY.unpack_from(
        data, _HEAD.size
    )
    x, y, z, height_s, error, counts = rest
    at = _HEAD.size + _BODY.size
    if flags > _DRAINING or counts >> 4 > MAX_STEP_TIMES or counts & 15 > MAX_ERRORS:
        raise ValueError(f"flags {flags}, counts {counts}")
    times = []
    for _ in range(counts >> 4):
        times.append(_STEP_TIME.unpack_from(data, at))
        at += _STEP_TIME.size
    errors = []
    for _ in range(counts & 15):
        kind, count, at = _read_error(data, at)
        errors.append((kind, count))
    if at != len(data) - SIGNATURE_BYTES:
        raise ValueError(f"{len(data)} bytes where {at + SIGNATURE_BYTES} are described")
    _check_times(queue_s, times)
    return Health(
        peer=peer,
        sequence=sequence,
        issued_at=issued_at,
        is_draining=bool(flags & _DRAINING),
        num_sessions=sessions,
        queue_depth=depth,
        queue_s=queue_s,
        kv_free_tokens=kv_free,
        step_times=tuple(times),
        vram_used=vram / _SHARE,
        device_load=load / _SHARE,
        errors=tuple(errors),
        coordinate=_coordinate(x, y, z, height_s, error),
    )


def _read_error(data: bytes, at: int) -> tuple[str, int, int]:
    size = data[at] if at < len(data) else 0
    kind = data[at + 1 : at + 1 + size].decode("ascii", "replace")
    if not 0 < size <= MAX_KIND_CHARS or not _KIND_CHARS.issuperset(kind):
        raise ValueError("an error's kind is not a word of small letters")
    (count,) = struct.unpack_from(">H", data, at + 1 + size)
    return kind, count, at + 3 + size


def _check_times(queue_s: float, times: list[tuple[int, float, float]]) -> None:
    if not 0 <= queue_s <= MAX_TIME_S:
        raise ValueError("a queue time that cannot be")
    previous = 0
    for tokens, p50_s, p95_s in times:
        if not (tokens > previous and 0 <= p50_s <= p95_s <= MAX_TIME_S):
            raise ValueError("step times that cannot be")
        previous = tokens


def _coordinate(x: float, y: float, z: float, height_s: float, error: float) -> Coordinate:
    # Comparisons with NaN are false, so that it is refused too.
    if not all(abs(part) <= MAX_COORDINATE_S for part in (x, y, z)):
        raise ValueError("a place out of bounds")
    if not (0 <= height_s <= MAX_COORDINATE_S and 0 <= error <= 1):
        raise ValueError("a height or error out of bounds")
    return Coordinate((x, y, z), height_s, error)


def _time(seconds: float) -> float:
    return min(max(seconds, 0.0), MAX_TIME_S) if math.isfinite(seconds) else MAX_TIME_S


def _share(value: float) -> int:
    return round(_SHARE * min(max(value, 0.0), 1.0)) if math.isfinite(value) else _SHARE
