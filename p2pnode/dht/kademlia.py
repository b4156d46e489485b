"""The directory on Kademlia: hivemind's protocol on our daemon, with our own rules and search."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Protocol, Self

from libp2p.crypto.keys import KeyPair

from p2pnode.dht import whois
from p2pnode.dht.address_book import AddressBook
from p2pnode.dht.admits import Admits, everybody
from p2pnode.dht.backend import DHTID, P2P, P2PDaemonError, PeerID
from p2pnode.dht.calls import Calls
from p2pnode.dht.fetch import Fetch
from p2pnode.dht.groups import Groups
from p2pnode.dht.holder import Holder
from p2pnode.dht.ids import from_hivemind, node_id_of, to_hivemind
from p2pnode.dht.protocol import MAX_KEYS, P2PNodeDirectory2
from p2pnode.dht.records import (
    ALL_KEYS,
    RecordJudge,
    key_of,
    newest_live,
    seal_announcement,
    shard_of,
    subkey_of,
)
from p2pnode.dht.search import MAX_CANDIDATES, Search
from p2pnode.errors import BadRecord, ClockSkew, DaemonDied, JoinFailed, P2PNodeError
from p2pnode.net.transport import Transport
from p2pnode.tasks import Tasks
from p2pnode.types import Announcement, PeerId

log = logging.getLogger(__name__)

SEARCH_WITHIN_S = 4.0
FETCH_WITHIN_S = 4.0
"""Who has not answered by then is left out: a call has a deadline, but one may follow another."""
CHECK_EVERY_S = 3.0
"""Who was heard longest ago is asked whether it is still there: the dead are not named for ever."""
LOOK_WITHIN_S = 1.0
SETUP_TIMEOUT_S = 5.0
MAX_CLOCK_SKEW_S = 3.0


class DaemonTransport(Transport, Protocol):
    """A transport with hivemind's daemon under it."""

    @property
    def p2p(self) -> P2P:
        """Hivemind's handle on the daemon."""
        ...


class KademliaDirectory:
    """A `Directory` that also holds records for others, unless it is a client's.

    ``async with`` registers its handlers on the transport's daemon (they go with it) and raises
    DaemonDied; leaving the block ends every call under way. After the daemon's death it must be
    left and made anew.
    """

    def __init__(
        self,
        transport: DaemonTransport,
        key_pair: KeyPair,
        *,
        wall_clock: Callable[[], float],
        monotonic: Callable[[], float],
        is_client: bool = False,
        admits: Admits = everybody,
    ) -> None:
        """admits: in a private swarm, who is in it; the others are not asked and not answered"""
        self._transport = transport
        self._key_pair = key_pair
        self._clock = wall_clock
        self._is_client = is_client
        self._admits = admits
        self.book = AddressBook(transport.connect, self._who_is)
        self._calls = Calls(self.book, self._introduce, monotonic=monotonic)
        self._judge = RecordJudge()
        self._holder = Holder(self._judge)
        self._groups = Groups(self._connected)
        self._tasks = Tasks()

    async def __aenter__(self) -> Self:
        self._protocol = P2PNodeDirectory2(
            self._transport.p2p,
            self._calls,
            self._holder,
            self._judge,
            self._groups,
            clock=self._clock,
            is_client=self._is_client,
            heard=self.book.heard,
            admits=self._admits,
        )
        if not self._is_client:
            await self._register()
        await self._tasks.__aenter__()
        self._tasks.start(self._check(), name="check-nodes")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._calls.close()
        # Told of no error, the group waits for its searches instead of cancelling them, and does
        # not wrap what the caller's block raised. They end soon: no call is answered now.
        await self._tasks.__aexit__(None, None, None)

    async def _register(self) -> None:
        """Answer the directory's calls, instead of an earlier directory on this transport."""
        try:
            async with asyncio.timeout(SETUP_TIMEOUT_S):
                await self._protocol.register()
                server = whois.WhoIsServer(self.book, self._transport)
                await self._transport.serve(whois.WHOIS, server.handle)
        except (P2PDaemonError, TimeoutError) as error:
            raise DaemonDied(f"p2pd does not accept handlers: {error!r}") from error

    # --- Directory

    async def publish(self, announcement: Announcement) -> None:
        """See `Directory.publish`."""
        value = seal_announcement(self._key_pair, announcement)
        key, subkey = key_of(shard_of(announcement.peer)), subkey_of(announcement)
        expires_at = announcement.expires_at
        self._judge.check(key, subkey, value, expires_at, now=self._clock())
        if not self._is_client:
            self._holder.put(key, subkey, value, expires_at, now=self._clock())
        await self.put(key, subkey, value, expires_at)

    async def put(self, key: bytes, subkey: str, value: bytes, expires_at: float) -> None:
        """Ask the holders of a key to keep these bytes.

        A node that knows nobody yet is its own holder. Raises BadRecord when they refuse,
        JoinFailed when none answers.
        """
        key_id = DHTID.generate(source=key)
        holders = (await self._search(key_id)).of[key_id].nearest()
        if not holders and not self._is_client:
            return
        answers = await self._store(holders, key, subkey, value, expires_at)
        if True in answers:
            return
        if False in answers:
            raise BadRecord(f"all {len(answers)} holders refused the record; check the clock")
        raise JoinFailed(f"none of {len(holders)} peers stored the announcement")

    async def announcements(self) -> tuple[Announcement, ...]:
        """See `Directory.announcements`."""
        answered_before = self._calls.num_answers
        read = await self._read()
        if self._is_client and self._calls.num_answers == answered_before:
            raise JoinFailed("no peer of the swarm answers; check this machine's network")
        live = newest_live(read, now=self._clock())
        self.book.learn_announced(live)
        return live

    # --- joining

    @property
    def peers(self) -> tuple[PeerId, ...]:
        """The nodes in our routing table."""
        return tuple(map(from_hivemind, self._protocol.table.peers))

    def addresses_of(self, peer: PeerId) -> tuple[str, ...]:
        """Where a node is, as far as we know; may be empty."""
        return self.book.addresses(peer)

    async def meet(self, peer: PeerId, addresses: tuple[str, ...]) -> None:
        """Get to know a node, and let it know us.

        Raises PeerError when it does not answer within `CALL_TIMEOUT_S`, ClockSkew when its clock
        and ours differ by more than `MAX_CLOCK_SKEW_S`.
        """
        self.book.learn(peer, addresses)
        self._calls.forgive(peer)
        ahead_s, uncertain_s = await self._protocol.ping(peer)
        if abs(ahead_s) - uncertain_s > MAX_CLOCK_SKEW_S:
            self._protocol.table.remove(node_id_of(to_hivemind(peer)))
            direction = "behind" if ahead_s > 0 else "ahead of"
            raise ClockSkew(
                f"this machine's clock is {abs(ahead_s):.1f} s {direction} that of peer "
                f"{peer.short}, at most {MAX_CLOCK_SKEW_S:.0f} s are allowed; set it (NTP)"
            )

    async def explore(self) -> None:
        """Find our own neighbourhood, so that we know nodes and nodes know us."""
        await self._search(self._protocol.node_id)

    # --- helpers

    async def _check(self) -> None:
        """Keep only those in the routing table who answer; until cancelled."""
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            peer = self._protocol.table.take_turns()
            if peer is None:
                continue
            try:
                await self._protocol.ping(from_hivemind(peer))
            except P2PNodeError as error:  # it has left the table
                log.debug("node is gone: error=%s", error)

    async def _search(self, *keys: DHTID) -> Search:
        """The nodes near these keys, and what they list, as far as they answer in time."""
        table, own = self._protocol.table, self._protocol.node_id
        search = Search(keys, self._protocol.find, self._groups, own=own, max_keys=MAX_KEYS)
        # All that we know: the nearest ones alone may be a crowd that names only itself.
        start = {key: dict(table.nearest(key, MAX_CANDIDATES)) for key in keys}
        await self._within(SEARCH_WITHIN_S, search.run(start), "search")
        search.stop()
        return search

    async def _read(self) -> list[Announcement]:
        """What is held under all keys, by us and by others who answer in time."""
        search = await self._search(*(DHTID.generate(source=key) for key in ALL_KEYS))
        now = self._clock()
        shards = [self._holder.shard(key, now=now) for key in ALL_KEYS]
        held = [each.announcement for shard in shards for each in shard.values()]
        fetch = Fetch(self._judge.known, self._protocol.fetch)
        await self._within(FETCH_WITHIN_S, fetch.run(search.holders()), "fetch")
        return held + fetch.found

    async def _connected(self) -> dict[PeerID, str]:
        try:
            async with asyncio.timeout(LOOK_WITHIN_S):
                connected = await self._transport.p2p.list_peers()
        except (P2PDaemonError, OSError, EOFError, TimeoutError):
            return {}  # the daemon is dying: nobody will answer either
        return {each.peer_id: str(each.addrs[0]) for each in connected if each.addrs}

    async def _store(
        self, holders: list[Any], key: bytes, subkey: str, value: bytes, expires_at: float
    ) -> list[bool | None]:
        async def store_at(holder: Any) -> bool | None:
            try:
                return await self._protocol.store(holder, key, subkey, value, expires_at)
            except P2PNodeError as error:
                log.debug("holder failed: error=%s", error)
                return None

        async with asyncio.TaskGroup() as group:
            answers = [group.create_task(store_at(holder), name="store") for holder in holders]
        return [answer.result() for answer in answers]

    async def _within(self, limit_s: float, work: Coroutine[Any, Any, None], name: str) -> None:
        """Wait for something, but not longer; it is left to end by itself, as its calls do.

        Not cancelled: whoever is silent shall be noted as such when its call's deadline has passed.
        """
        task = self._tasks.start(work, name=name)
        done, _ = await asyncio.wait({task}, timeout=limit_s)
        if done:
            task.result()

    async def _introduce(self, peer: PeerId) -> None:
        await whois.ask(self._transport, peer, None, is_client=self._is_client)

    async def _who_is(self, asked: PeerId, about: PeerId) -> tuple[str, ...]:
        return await whois.ask(self._transport, asked, about, is_client=self._is_client)
