"""The last good peers, kept in the home folder: how a node finds its swarm when all else fails."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2pnode.dht.address_book import valid_addresses
from p2pnode.types import PeerId

log = logging.getLogger(__name__)

FILE_NAME = "peers.json"
VERSION = 1
MAX_PEERS = 64
MAX_FILE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class GoodPeer:
    """A node that answered us, where, and when (wall clock)."""

    peer: PeerId
    addresses: tuple[str, ...]
    seen_at: float


def load_peers(path: Path) -> tuple[GoodPeer, ...]:
    """The peers in the file, the last seen first; none without a file.

    A file that cannot be read or is not ours is reported once and treated as empty.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        return _newest_first(_parse(data))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, RecursionError) as error:
        log.warning("last good peers ignored: file=%s error=%r", path, str(error))
        return ()


def save_peers(path: Path, peers: Iterable[GoodPeer]) -> None:
    """Put these before the ones in the file; a reader sees the old file or the new one.

    Failing is reported, never raised: a full disk must not stop a node that is serving.
    """
    ours = tuple(peers)
    merged = {good.peer: good for good in (*reversed(load_peers(path)), *ours)}
    content = {
        "version": VERSION,
        "peers": [
            {"peer": good.peer, "addresses": list(good.addresses), "seen_at": good.seen_at}
            for good in _newest_first(merged.values())
        ],
    }
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(json.dumps(content, indent=1) + "\n")
        draft.replace(path)
    except OSError as error:
        log.warning("last good peers not saved: file=%s error=%s", path, error)
        draft.unlink(missing_ok=True)


def _newest_first(peers: Iterable[GoodPeer]) -> tuple[GoodPeer, ...]:
    return tuple(sorted(peers, key=lambda good: -good.seen_at)[:MAX_PEERS])


def _parse(data: bytes) -> list[GoodPeer]:
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"more than {MAX_FILE_BYTES} bytes")
    content = json.loads(data)
    if type(content) is not dict or content.keys() != {"version", "peers"}:
        raise ValueError("not a file of last good peers")
    if content["version"] != VERSION or type(content["peers"]) is not list:
        raise ValueError("not a file of this version")
    return [_parse_peer(entry) for entry in content["peers"]]


def _parse_peer(entry: Any) -> GoodPeer:
    if type(entry) is not dict or entry.keys() != {"peer", "addresses", "seen_at"}:
        raise ValueError("an entry is not (peer, addresses, seen_at)")
    name, addresses, seen_at = entry["peer"], entry["addresses"], entry["seen_at"]
    if type(name) is not str or type(seen_at) not in (int, float) or not math.isfinite(seen_at):
        raise ValueError("an entry has no peer or time")
    if type(addresses) is not list or not all(type(each) is str for each in addresses):
        raise ValueError("an entry has no addresses")
    peer = PeerId.parse(name)
    return GoodPeer(peer, valid_addresses(peer, addresses), float(seen_at))
