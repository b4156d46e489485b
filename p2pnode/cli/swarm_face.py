"""What ``p2pnode swarm`` does and shows."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from p2pnode.cli.output import Output
from p2pnode.config import ClientConfig, Home, SwarmConfig
from p2pnode.dht.peers_file import FILE_NAME, load_peers
from p2pnode.errors import BadInvite, BadRequest, BadWarrant, P2PNodeError
from p2pnode.log import escape
from p2pnode.swarm.membership import Membership, enter, memberships
from p2pnode.swarm.p2p_network import client_network
from p2pnode.swarm.running import running_addresses
from p2pnode.trust.grants import FOREVER, Quota, Right, Warrant
from p2pnode.trust.guard import short
from p2pnode.trust.invite import MAX_ADDRESSES, is_invite, read_invite
from p2pnode.trust.news import News, revoke
from p2pnode.types import PeerId


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an invite shall allow."""

    right: str
    expires_in_s: int
    quota: tuple[int, int]
    peer: str | None


def created(membership: Membership, output: Output) -> None:
    """Tell of a new swarm."""
    name, folder = membership.name, membership.folder
    swarm = short(membership.warrant.swarm)
    output.result({"swarm": name, "id": swarm, "folder": str(folder)})
    output.say(f"swarm      {name} ({swarm}); keep {folder} safe: it holds the founder's key")
    output.say(f"start it   p2pnode bootstrap --invite {name}")
    output.say(f"invite     p2pnode swarm invite --swarm {name} [--serve]")


def invited(
    home: Home, swarm: str | None, wanted: Wanted, join: tuple[str, ...], output: Output
) -> None:
    """Make an invite and print it: the only place that ever shows one."""
    membership, now = _one(home, swarm), int(time.time())
    known = (*join, *_addresses(membership))
    if not known:
        start = f"start one (p2pnode bootstrap --invite {membership.name}) or name one with --join"
        raise BadRequest(f"no node of {membership.name} is known, and an invite has to: {start}")
    try:
        sessions, tokens_per_day = wanted.quota
        invite = membership.invite_for(
            right=Right[wanted.right.upper()],
            expires_at=min(now + wanted.expires_in_s, membership.warrant.expires_at),
            quota=Quota(sessions=sessions, tokens_per_day=tokens_per_day),
            addresses=tuple(dict.fromkeys(known))[:MAX_ADDRESSES],
            peer=PeerId.parse(wanted.peer) if wanted.peer else None,
        )
    except (BadWarrant, ValueError) as error:
        raise BadInvite(f"cannot invite to {membership.name}: {error}") from error
    membership.note_issued(invite.warrant)
    fields = {"swarm": membership.name, **_warrant(invite.warrant), "invite": invite.text}
    output.result(fields)
    output.say(invite.text)
    until = _until(invite.warrant)
    output.note(
        f"{fields['right']} until {until}; to take it back: p2pnode swarm revoke {fields['id']}"
    )


async def revoked(
    home: Home, swarm: str | None, key: str, join: tuple[str, ...], output: Output
) -> None:
    """Sign a revocation, write it down, and tell it to whoever can be reached."""
    membership, now = _one(home, swarm), time.time()
    news = membership.news_file.load(now=now)
    target, until = _target(membership, news, key)
    warrant = membership.warrant
    if warrant.right is not Right.ADMIN:
        raise BadRequest(f"this home is no admin of {membership.name}, so it cannot revoke")
    item = revoke(
        warrant, target, until, news.next_sequence(warrant.subject), membership.holder.sign
    ).item
    try:
        news.add(item, now)
    except BadWarrant as error:
        raise BadRequest(f"cannot revoke: {error}") from error
    membership.news_file.save(news, now=now)
    num_told = await _told(home, membership, join)
    output.result({"swarm": membership.name, "revoked": short(target), "num_told": num_told})
    told = f"{num_told} nodes were told" if num_told else "no node can be reached now; one of this "
    told += "" if num_told else "home will tell it when it runs"
    output.say(f"revoked    {short(target)} in {membership.name}; {told}")


async def _told(home: Home, membership: Membership, join: tuple[str, ...]) -> int:
    """Join for a moment; how many nodes have heard."""
    swarm = SwarmConfig(home=home, join=join, invite=membership.name, starts_swarm=False)
    config = ClientConfig(swarm=swarm, cache=home.cache)
    try:
        async with client_network(config).join() as joined:
            return 0 if joined.inside is None else await joined.inside.teller.tell_all()
    except P2PNodeError:
        return 0


def shown(home: Home, swarm: str | None, output: Output) -> None:
    """Print what is known of one swarm, or of all."""
    found = [_one(home, swarm)] if swarm else list(memberships(home))
    swarms = [_shown(each) for each in found]
    output.result({"swarms": swarms})
    if not swarms:
        output.say("this home is in no private swarm; found one: p2pnode swarm create NAME")
    for each in swarms:
        output.say(f"{each['swarm']} ({each['id']}): {each['right']} until {each['until']}")
        for used in each["used"]:
            output.say(f"  used     {used['id']} by {used['by']}, {used['right']}")
        for gone in each["revoked"]:
            output.say(f"  revoked  {gone['id']} by {gone['by']}")


def _shown(membership: Membership) -> dict[str, Any]:
    news = membership.news_file.load(now=time.time())
    warrant = membership.warrant
    return {
        "swarm": membership.name,
        "id": short(warrant.swarm),
        "member": short(warrant.holder),
        "right": warrant.right.name.lower(),
        "until": _until(warrant),
        "expires_at": None if warrant.expires_at == FOREVER else warrant.expires_at,
        "addresses": list(_addresses(membership)),
        "used": [
            {
                **_warrant(claim.warrant),
                "id": short(claim.invite),
                "by": short(claim.warrant.holder),
            }
            for claim in news.claims
        ],
        "revoked": [
            {"id": short(each.target), "by": short(each.warrant.subject)}
            for each in sorted(news.revocations, key=lambda each: each.sequence)
        ],
    }


def _warrant(warrant: Warrant) -> dict[str, Any]:
    return {
        "id": short(warrant.subject),
        "right": warrant.right.name.lower(),
        "expires_at": warrant.expires_at,
        "sessions": warrant.quota.sessions,
        "tokens_per_day": warrant.quota.tokens_per_day,
    }


def _until(warrant: Warrant) -> str:
    if warrant.expires_at == FOREVER:
        return "for ever"
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(warrant.expires_at))


def _one(home: Home, name: str | None) -> Membership:
    """The swarm of that name, or the only one."""
    if name is not None:
        return enter(home, name, now=time.time())
    found = list(memberships(home))
    if len(found) != 1:
        names = ", ".join(each.name for each in found)
        hint = f"is in several swarms ({names}); say --swarm NAME" if found else "is in none"
        raise BadRequest(f"this home {hint}; found one with: p2pnode swarm create NAME")
    return found[0]


def _addresses(membership: Membership) -> tuple[str, ...]:
    """Nodes of the swarm that are known here: of this home, the last good ones, the invite's."""
    running = running_addresses(membership.folder / "run")
    good = load_peers(membership.folder / FILE_NAME)
    known = (*running, *(address for each in good for address in each.addresses))
    return tuple(dict.fromkeys((*known, *membership.invite.addresses)))


def _target(membership: Membership, news: News, text: str) -> tuple[bytes, int]:
    """The key that an id or an invite names, and until when it must be remembered as revoked."""
    if is_invite(text):
        warrant = read_invite(text).warrant
        return warrant.subject, warrant.expires_at
    known: dict[bytes, int] = {}
    for claim in news.claims:
        until = claim.warrant.expires_at
        known |= {claim.invite: until, claim.warrant.subject: until}
    known |= membership.issued()
    found = {key: until for key, until in known.items() if short(key) == text.lower()}
    if len(found) != 1:
        known_ids = "see p2pnode swarm show, or give the invite"
        raise BadRequest(f"no invite or member {escape(text, 40)!r} is known here: {known_ids}")
    return next(iter(found.items()))
