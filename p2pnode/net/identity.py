"""Who we are: an Ed25519 key in a file of libp2p's format, and the peer id made from it.

Rules of key files:
- created exclusively, readable by their owner only; looser ones are refused, never mended;
- one process per key: the file stays locked while a node uses it;
- the form is the one that p2pd reads: ``08 01 12 40 | seed (32) | public key (32)``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.keys import KeyPair
from libp2p.peer.id import ID

from p2pnode.errors import DiskFull, KeyFileError
from p2pnode.types import PeerId

SEED_BYTES = 32
_FILE_PREFIX = bytes.fromhex("08011240")
_FILE_BYTES = len(_FILE_PREFIX) + 2 * SEED_BYTES
_PEER_PREFIX = bytes.fromhex("002408011220")
_MAX_NODES_PER_HOME = 1000


class Identity:
    """An Ed25519 key pair; ``path`` is its file, None for one that lives in memory only."""

    def __init__(self, key_pair: KeyPair, path: Path | None = None) -> None:
        self.key_pair = key_pair
        self.path = path
        self.peer = PeerId.parse(ID.from_pubkey(key_pair.public_key).to_base58())

    @classmethod
    def from_seed(cls, seed: bytes, path: Path | None = None) -> Identity:
        """The key pair of a 32-byte secret."""
        if len(seed) != SEED_BYTES:
            raise ValueError(f"a seed has {SEED_BYTES} bytes, not {len(seed)}")
        return cls(create_new_key_pair(seed), path)

    @classmethod
    def ephemeral(cls) -> Identity:
        """A fresh one that is forgotten with the process: clients."""
        return cls.from_seed(os.urandom(SEED_BYTES))

    def __repr__(self) -> str:
        return f"Identity({self.peer})"

    def sign(self, data: bytes) -> bytes:
        """Our 64-byte Ed25519 signature."""
        signature: bytes = self.key_pair.private_key.sign(data)
        return signature

    def file_bytes(self) -> bytes:
        """The key as p2pd reads it. A secret."""
        seed: bytes = self.key_pair.private_key.to_bytes()
        public: bytes = self.key_pair.public_key.to_bytes()
        return _FILE_PREFIX + seed + public


def public_key(peer: PeerId) -> bytes:
    """The 32-byte Ed25519 key inside a peer id; ValueError when there is none."""
    try:
        data: bytes = ID.from_base58(peer).to_bytes()
    except ValueError as error:
        raise ValueError(f"{peer[:60]!r} is not base58") from error
    if len(data) != len(_PEER_PREFIX) + SEED_BYTES or not data.startswith(_PEER_PREFIX):
        raise ValueError(f"{peer[:60]!r} is not the peer id of an Ed25519 key")
    return data[len(_PEER_PREFIX) :]


def peer_of(key: bytes) -> PeerId:
    """The peer id of a 32-byte Ed25519 public key."""
    if len(key) != SEED_BYTES:
        raise ValueError(f"an Ed25519 public key has {SEED_BYTES} bytes, not {len(key)}")
    return PeerId.parse(ID(_PEER_PREFIX + key).to_base58())


def load(path: Path) -> Identity:
    """Read a key file; raises KeyFileError when it is missing, loose, or of another format."""
    with _opened(path) as descriptor:
        return _read(descriptor, path)


def load_or_create(path: Path) -> Identity:
    """Read a key file, or make one; raises KeyFileError or DiskFull."""
    with _opened(_exists(path)) as descriptor:
        return _read(descriptor, path)


@contextlib.contextmanager
def claim(folder: Path, explicit: Path | None = None) -> Iterator[Identity]:
    """An identity that no other process uses while the block runs; ``.path`` is its file.

    Takes ``explicit``, or the first of ``node.key``, ``node-2.key``, ... in ``folder`` that is
    free; makes it when missing. Raises KeyFileError when ``explicit`` is in use.
    """
    if explicit is not None:
        with _opened(_exists(explicit)) as descriptor:
            if not _lock(descriptor):
                raise KeyFileError(f"{explicit} is in use by a running node; give another --key")
            yield _read(descriptor, explicit)
        return
    for number in range(1, _MAX_NODES_PER_HOME + 1):
        path = folder / ("node.key" if number == 1 else f"node-{number}.key")
        with _opened(_exists(path)) as descriptor:
            if _lock(descriptor):
                yield _read(descriptor, path)
                return
    raise KeyFileError(f"{_MAX_NODES_PER_HOME} keys in {folder} are in use")


def write_new(path: Path, identity: Identity) -> None:
    """Write a key file that must not exist, mode 0600; raises FileExistsError or DiskFull."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    try:
        os.write(descriptor, identity.file_bytes())
        os.fsync(descriptor)
    except OSError as error:
        path.unlink()
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"no room to write the key file {path}") from error
        raise
    finally:
        os.close(descriptor)


def _exists(path: Path) -> Path:
    """Make the key file when it is missing. Of several who try at once, one does."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The folder's lock keeps others from reading a key that is half written.
        with _opened(path.parent, os.O_DIRECTORY) as folder:
            fcntl.flock(folder, fcntl.LOCK_EX)
            if not path.exists():
                write_new(path, Identity.ephemeral())
    except OSError as error:
        raise KeyFileError(f"cannot make the key file {path}: {error.strerror}") from error
    return path


@contextlib.contextmanager
def _opened(path: Path, flags: int = os.O_NONBLOCK) -> Iterator[int]:
    """A descriptor to read from; not blocking, in case somebody put a pipe there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    except OSError as error:
        raise KeyFileError(f"cannot read the key file {path}: {error.strerror}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(descriptor: int, path: Path) -> Identity:
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        raise KeyFileError(f"{path} is not a file")
    if facts.st_uid != os.geteuid():
        raise KeyFileError(f"the key file {path} belongs to another user ({facts.st_uid})")
    if facts.st_mode & 0o077:
        mode = stat.S_IMODE(facts.st_mode)
        raise KeyFileError(f"others can read the key file {path} (mode {mode:o}): chmod 600 it")
    if facts.st_size > _FILE_BYTES:
        raise KeyFileError(f"{path} is too large for a key file ({facts.st_size} bytes)")
    data = os.read(descriptor, _FILE_BYTES + 1)
    if len(data) != _FILE_BYTES or not data.startswith(_FILE_PREFIX):
        what = f"{path} is not an Ed25519 key file of libp2p's 64-byte form ({len(data)} bytes)"
        raise KeyFileError(f"{what}; move it away and a new one is made")
    seed = data[len(_FILE_PREFIX) : -SEED_BYTES]
    identity = Identity.from_seed(seed, path)
    if identity.file_bytes() != data:
        raise KeyFileError(f"{path} is damaged: its public key does not belong to its secret")
    return identity
