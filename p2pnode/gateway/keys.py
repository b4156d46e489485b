"""API keys: who may use the gateway. On disk are only hashes, in a file that only we can read.

A key is 32 random bytes, so a plain SHA-256 of it cannot be searched and needs neither salt nor
stretching. Without the file everybody may ask; with it, also an empty one, only its keys.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import stat
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from p2pnode.errors import BadRequest, KeyFileError
from p2pnode.log import escape

PREFIX = "p2pnode-"
MAX_KEYS = 10_000
MAX_FILE_BYTES = 8 << 20
MAX_NAME_CHARS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """What is kept of a key."""

    id: str
    """To name it in `keys remove` and in logs; says nothing of the key."""
    name: str
    sha256: str
    created_at: float
    requests_per_minute: int | None = None
    """None: as the gateway says for all."""
    concurrent_requests: int | None = None


class KeyFile:
    """The keys of one home; changes by other processes are seen at the next look."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._version: tuple[int, ...] = ()
        self._keys: tuple[ApiKey, ...] = ()

    @property
    def exists(self) -> bool:
        """Whether a key is needed at all."""
        return self.path.exists()

    def keys(self) -> tuple[ApiKey, ...]:
        """All keys; raises KeyFileError when the file is not ours alone, or no list of keys."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            self._version = ()
            return ()
        except OSError as error:
            raise KeyFileError(f"cannot read {self.path}: {error.strerror}") from None
        with open(descriptor, "rb") as file:
            facts = os.fstat(descriptor)
            version = (facts.st_ino, facts.st_mtime_ns, facts.st_size, facts.st_mode)
            if version != self._version:
                _check_private(self.path, facts)
                self._keys, self._version = _parse(file.read(MAX_FILE_BYTES), self.path), version
        return self._keys

    def find(self, secret: str) -> ApiKey | None:
        """The key that this is, compared in a time that tells nothing of the others."""
        wanted = _hash(secret)
        found = None
        for key in self.keys():
            if hmac.compare_digest(key.sha256, wanted):
                found = key
        return found

    def add(
        self,
        name: str,
        *,
        requests_per_minute: int | None = None,
        concurrent_requests: int | None = None,
    ) -> tuple[ApiKey, str]:
        """Make a key; returns the secret, too, which is kept nowhere. Raises KeyFileError."""
        known = self.keys()
        if len(known) >= MAX_KEYS:
            raise BadRequest(f"{MAX_KEYS} keys are the most; remove some")
        if not name.strip() or len(name) > MAX_NAME_CHARS or not name.isprintable():
            raise BadRequest(f"a key's name has 1 to {MAX_NAME_CHARS} printable characters")
        secret = PREFIX + secrets.token_urlsafe(32)
        key = ApiKey(
            id=secrets.token_hex(4),
            name=name,
            sha256=_hash(secret),
            created_at=time.time(),
            requests_per_minute=requests_per_minute,
            concurrent_requests=concurrent_requests,
        )
        self._write((*known, key))
        return key, secret

    def remove(self, key_id: str) -> ApiKey:
        """Forget a key; running gateways refuse it at once. Raises BadRequest, KeyFileError."""
        known = self.keys()
        gone = next((key for key in known if key.id == key_id), None)
        if gone is None:
            raise BadRequest(f"no API key has the id {escape(key_id, 40)}; see: gateway keys list")
        self._write([key for key in known if key.id != key_id])
        return gone

    def _write(self, keys: Sequence[ApiKey]) -> None:
        """Whole or not at all; mode 0600 from the first byte on."""
        text = json.dumps({"keys": [asdict(key) for key in keys]}, indent=1)
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self.path.parent, delete=False) as file:
                file.write(text)  # the library makes it with mode 0600
                file.flush()
                os.fsync(file.fileno())
            os.replace(file.name, self.path)
        except OSError as error:
            raise KeyFileError(f"cannot write {self.path}: {error.strerror}") from error


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def _check_private(path: Path, facts: os.stat_result) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise KeyFileError(f"{path} is not a file")
    if facts.st_uid != os.geteuid():
        raise KeyFileError(f"{path} belongs to another user ({facts.st_uid})")
    if facts.st_mode & 0o077:
        mode = stat.S_IMODE(facts.st_mode)
        raise KeyFileError(f"others can read {path} (mode {mode:o}): chmod 600 it")
    if facts.st_size >= MAX_FILE_BYTES:
        raise KeyFileError(f"{path} is too large for a list of keys ({facts.st_size} bytes)")


def _parse(data: bytes, path: Path) -> tuple[ApiKey, ...]:
    try:
        return tuple(_key(each) for each in json.loads(data)["keys"])
    except (ValueError, TypeError, KeyError, RecursionError):
        what = f"{path} is not a list of API keys"
        raise KeyFileError(f"{what}; move it away and add them anew") from None


def _key(value: dict[str, Any]) -> ApiKey:
    """Raises ValueError, TypeError, KeyError for anything but a key."""
    names = {field.name for field in fields(ApiKey)}
    if set(value) != names:
        raise ValueError("not the fields of a key")
    for name in ("id", "name", "sha256"):
        if type(value[name]) is not str:
            raise TypeError(name)
    if len(value["sha256"]) != 64 or not value["sha256"].isascii():
        raise ValueError("sha256")
    for name in ("requests_per_minute", "concurrent_requests"):
        if value[name] is not None and (type(value[name]) is not int or value[name] < 1):
            raise ValueError(name)
    return ApiKey(**value)
