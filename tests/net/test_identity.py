"""Key files: the format, who may read them, and one process per key."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from libp2p.crypto.ed25519 import Ed25519PublicKey
from libp2p.peer.id import ID

from p2pnode.errors import KeyFileError
from p2pnode.net.identity import (
    Identity,
    claim,
    load,
    load_or_create,
    peer_of,
    public_key,
    write_new,
)
from p2pnode.types import PeerId

SEED = bytes(range(32))


def test_a_new_key_file_is_private_and_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "home" / "keys" / "node.key"
    first = load_or_create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_or_create(path).peer == load(path).peer == first.peer


def test_the_file_has_the_form_that_p2pd_reads(tmp_path: Path) -> None:
    identity = Identity.from_seed(SEED)
    write_new(tmp_path / "key", identity)
    data = (tmp_path / "key").read_bytes()
    assert data == bytes.fromhex("08011240") + SEED + public_key(identity.peer)


def test_a_peer_id_holds_its_public_key() -> None:
    identity = Identity.ephemeral()
    key = public_key(identity.peer)
    assert key == identity.key_pair.public_key.to_bytes()
    assert peer_of(key) == identity.peer == ID.from_pubkey(identity.key_pair.public_key).to_base58()


def test_a_signature_verifies_under_the_key_in_the_peer_id() -> None:
    identity = Identity.from_seed(SEED)
    signature = identity.sign(b"data")
    key = Ed25519PublicKey.from_bytes(public_key(identity.peer))
    assert key.verify(b"data", signature)
    assert not key.verify(b"date", signature)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0OIl",
        "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
        "12D3KooW" + "1" * 44,
        "12D3KooWé",
    ],
)
def test_what_is_not_an_ed25519_peer_id_has_no_key(text: str) -> None:
    with pytest.raises(ValueError):
        public_key(PeerId(text))


def _short(path: Path) -> None:
    path.write_bytes(b"")


def _py_libp2p_form(path: Path) -> None:
    path.write_bytes(bytes.fromhex("08011220") + SEED)


def _rsa(path: Path) -> None:
    path.write_bytes(bytes.fromhex("08001240") + bytes(64))


def _wrong_public_key(path: Path) -> None:
    path.write_bytes(bytes.fromhex("08011240") + SEED + bytes(32))


def _large(path: Path) -> None:
    path.write_bytes(Identity.from_seed(SEED).file_bytes() + b"x")


def _folder(path: Path) -> None:
    path.mkdir()


def _pipe(path: Path) -> None:
    os.mkfifo(path, 0o600)


@pytest.mark.parametrize(
    ("write", "what"),
    [
        (_short, "not an Ed25519 key file"),
        (_py_libp2p_form, "not an Ed25519 key file"),
        (_rsa, "not an Ed25519 key file"),
        (_wrong_public_key, "damaged"),
        (_large, "too large"),
        (_folder, "is not a file"),
        (_pipe, "is not a file"),
    ],
)
def test_other_formats_are_refused(
    tmp_path: Path, write: Callable[[Path], None], what: str
) -> None:
    path = tmp_path / "key"
    write(path)
    if path.is_file():
        path.chmod(0o600)
    with pytest.raises(KeyFileError, match=what):
        load_or_create(path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o777])
def test_a_key_that_others_can_read_is_refused_and_left_as_it_is(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    write_new(path, Identity.from_seed(SEED))
    path.chmod(mode)
    with pytest.raises(KeyFileError, match="chmod 600"):
        load(path)
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_key_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_new(path, Identity.from_seed(SEED))
    os.chown(path, 12345, 12345)
    with pytest.raises(KeyFileError, match="another user"):
        load(path)


def test_a_missing_key_is_an_error_where_none_may_be_made(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="No such file"):
        load(tmp_path / "key")


def test_a_key_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_new(path, Identity.from_seed(SEED))
    with pytest.raises(FileExistsError):
        write_new(path, Identity.ephemeral())
    assert load(path).peer == Identity.from_seed(SEED).peer


def test_a_folder_that_cannot_be_made_is_a_key_file_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(KeyFileError, match="cannot make"):
        load_or_create(tmp_path / "file" / "node.key")


def test_each_node_of_a_home_takes_the_next_free_key(tmp_path: Path) -> None:
    with claim(tmp_path) as first, claim(tmp_path) as second:
        with claim(tmp_path) as third:
            paths = [first.path, second.path, third.path]
        with claim(tmp_path) as again:
            assert again.peer == third.peer
    assert paths == [tmp_path / name for name in ("node.key", "node-2.key", "node-3.key")]
    assert len({first.peer, second.peer, third.peer}) == 3
    with claim(tmp_path) as later:
        assert later.peer == first.peer


def test_an_explicit_key_in_use_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.key"
    with claim(tmp_path, path) as identity:
        assert identity.path == path
        with pytest.raises(KeyFileError, match="in use"), claim(tmp_path, path):
            pass
    with claim(tmp_path, path) as again:
        assert again.peer == identity.peer


def test_a_bad_default_key_is_not_skipped(tmp_path: Path) -> None:
    (tmp_path / "node.key").write_bytes(b"not a key")
    (tmp_path / "node.key").chmod(0o600)
    with pytest.raises(KeyFileError), claim(tmp_path):
        pass


def test_the_secret_is_not_shown() -> None:
    identity = Identity.from_seed(SEED)
    assert repr(identity) == f"Identity({identity.peer})"
