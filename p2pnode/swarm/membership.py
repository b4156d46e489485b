"""What a home has of each private swarm: a folder with the key of its member, and its invite.

Rules:
- a home is one member: its first use of an invite makes the member's key (the claim, see `trust`),
  and every peer of the home, nodes and clients, gets a seat from that key;
- files are readable by their owner only; the invite is kept, so that from then on the swarm's name
  is enough.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from p2pnode.config import Home
from p2pnode.errors import BadInvite, KeyFileError, LocalError
from p2pnode.log import escape
from p2pnode.net.identity import Identity, load, load_or_create, public_key, write_new
from p2pnode.swarm.news_file import NewsFile
from p2pnode.trust.grants import Grant, Kind, Quota, Right, Warrant
from p2pnode.trust.guard import Guard, short
from p2pnode.trust.invite import MAX_CHARS, Invite, is_invite, read_invite
from p2pnode.types import PeerId

INVITE_FILE = "invite"
NEWS_FILE = "news"
ISSUED_FILE = "issued"
FOUNDER_KEY = "founder.key"


@dataclass(frozen=True, slots=True)
class Membership:
    """One home's part in one swarm."""

    folder: Path
    invite: Invite
    holder: Identity
    """The member: whose key seats are signed with."""
    warrant: Warrant
    """Ends in the holder's key."""

    @property
    def name(self) -> str:
        """What the swarm is called by its members."""
        return self.invite.name

    @property
    def news_file(self) -> NewsFile:
        """What the home has heard of the swarm."""
        return NewsFile(self.folder / NEWS_FILE, self.warrant.swarm)

    def seat(self, peer: PeerId) -> Warrant:
        """A warrant for one of the home's peers."""
        key = public_key(peer)
        if key == self.warrant.subject:
            return self.warrant
        seat = Grant(
            kind=Kind.SEAT,
            right=self.warrant.right,
            subject=key,
            expires_at=self.warrant.expires_at,
        )
        return self.warrant.and_then(seat, self.holder.sign)

    def check_serves(self) -> None:
        """Raises BadInvite unless nodes of this home may serve."""
        if self.warrant.right < Right.SERVE:
            what = f"the invite to {self.name} lets you use the swarm, not serve it"
            raise BadInvite(f"{what}; ask an admin for one with --serve")

    def guard(self, identity: Identity, *, wall_clock: Callable[[], float]) -> Guard:
        """What stands at the doors of one of the home's peers."""
        news = self.news_file.load(now=wall_clock())
        warrant = self.seat(identity.peer)
        news.claim(warrant, wall_clock())
        return Guard(warrant, identity.sign, news, wall_clock=wall_clock)

    def invite_for(
        self,
        *,
        right: Right,
        expires_at: int,
        quota: Quota,
        addresses: tuple[str, ...],
        peer: PeerId | None = None,
    ) -> Invite:
        """An invite for the home that uses it first, or for the one that has a peer's key.

        Raises BadWarrant when we may not grant that.
        """
        secret = b"" if peer else os.urandom(32)
        subject = public_key(peer) if peer else public_key(Identity.from_seed(secret).peer)
        grant = Grant(right=right, subject=subject, expires_at=expires_at, quota=quota)
        warrant = self.warrant.and_then(grant, self.holder.sign)
        return Invite(self.name, warrant, addresses, secret)

    def note_issued(self, warrant: Warrant) -> None:
        """Remember an invite of ours, so that it can be revoked by its id; raises LocalError."""
        issued = {**self.issued(), warrant.subject: warrant.expires_at}
        _write(self.folder / ISSUED_FILE, "\n".join(f"{k.hex()} {t}" for k, t in issued.items()))

    def issued(self) -> dict[bytes, int]:
        """The keys of our invites, and when they expire."""
        try:
            lines = (self.folder / ISSUED_FILE).read_text().splitlines()
            pairs = [line.split() for line in lines]
            return {bytes.fromhex(key): int(until) for key, until in pairs}
        except (OSError, ValueError):
            return {}


def found(home: Home, name: str) -> Membership:
    """A new swarm, of which this home is the founder; raises BadInvite, LocalError."""
    if any(each.name == name for each in memberships(home)):
        raise BadInvite(f"this home is in a swarm called {name} already; take another name")
    founder = Identity.ephemeral()
    swarm = public_key(founder.peer)
    invite = Invite(name, Warrant(swarm), ())
    folder = _folder(home, swarm)
    try:
        write_new(folder / FOUNDER_KEY, founder)
    except OSError as error:
        raise LocalError(f"cannot write {folder / FOUNDER_KEY}: {error.strerror}") from error
    _write(folder / INVITE_FILE, invite.text)
    return _open(home, folder, invite)


def enter(home: Home, text: str, *, now: float) -> Membership:
    """What an ``--invite`` stands for: an invite, a file with one, or a swarm's name.

    Raises BadInvite, KeyFileError, LocalError.
    """
    known = None if is_invite(text) else _by_name(home, text)
    invite = known.invite if known else read_invite(text if is_invite(text) else _read(Path(text)))
    if invite.warrant.expires_at <= now:
        raise BadInvite(f"the invite to {invite.name} has expired; ask for a new one")
    if known is not None:
        return known
    folder = _folder(home, invite.warrant.swarm)
    membership = _open(home, folder, invite)
    if not (folder / FOUNDER_KEY).exists():
        _write(folder / INVITE_FILE, invite.text)
    return membership


def memberships(home: Home) -> Iterator[Membership]:
    """All swarms that this home is in."""
    for file in sorted(home.swarms.glob(f"*/{INVITE_FILE}")):
        yield _open(home, file.parent, read_invite(_read(file)))


def _by_name(home: Home, name: str) -> Membership | None:
    found = [each for each in memberships(home) if each.name == name]
    if len(found) > 1:
        ids = ", ".join(short(each.warrant.swarm) for each in found)
        raise BadInvite(f"swarms are called {escape(name, 40)} here ({ids}); give an invite")
    return found[0] if found else None


def _open(home: Home, folder: Path, invite: Invite) -> Membership:
    """Our key in that swarm, and the warrant for it."""
    warrant = invite.warrant
    if not invite.secret:
        holder = _key_of(warrant.subject, (folder, home.keys))
        return Membership(folder, invite, holder, warrant)
    one_time = Identity.from_seed(invite.secret)
    if public_key(one_time.peer) != warrant.subject:
        raise BadInvite("the invite's key is not the one that it grants to")
    holder = load_or_create(folder / f"member-{short(warrant.subject)}.key")
    claim = Grant(
        kind=Kind.CLAIM,
        right=warrant.right,
        subject=public_key(holder.peer),
        expires_at=warrant.expires_at,
    )
    return Membership(folder, invite, holder, warrant.and_then(claim, one_time.sign))


def _key_of(subject: bytes, folders: tuple[Path, ...]) -> Identity:
    for file in (each for folder in folders for each in sorted(folder.glob("*.key"))):
        identity = load(file)
        if public_key(identity.peer) == subject:
            return identity
    raise BadInvite("the invite is for a key that this home does not have")


def _folder(home: Home, swarm: bytes) -> Path:
    folder = home.swarms / short(swarm)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise LocalError(f"cannot make {folder}: {error.strerror}") from error
    return folder


def _read(file: Path) -> str:
    """A file with an invite, which is a secret: raises KeyFileError when others can read it."""
    name = escape(str(file), 200)
    try:
        with file.open() as opened:
            if os.fstat(opened.fileno()).st_mode & 0o077:
                raise KeyFileError(f"others can read the invite in {name}: chmod 600 it")
            return opened.read(MAX_CHARS)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise BadInvite(
            f"{name} is no invite, no file with one, and no swarm of this home: {reason}"
        ) from None


def _write(file: Path, text: str) -> None:
    """Replace a file that only we may read, at once; raises LocalError."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as opened:
            opened.write(text + "\n")
        draft.replace(file)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise LocalError(f"cannot write {file}: {error.strerror}") from error
