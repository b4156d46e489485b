"""News of a private swarm reaches everybody; who is cut off hears it later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from p2pnode.dht.whois import WHOIS
from p2pnode.errors import PeerDenied
from p2pnode.lab.members import Founder
from p2pnode.lab.overlay import EPOCH_S
from p2pnode.net.gate import key_of
from p2pnode.net.memory import Line, MemoryNetwork, fake_identity
from p2pnode.swarm.inside import Entrance, Inside
from p2pnode.swarm.news_file import NewsFile
from p2pnode.tasks import Tasks
from p2pnode.trust.guard import Guard
from p2pnode.trust.news import News
from p2pnode.types import PeerId

pytestmark = pytest.mark.virtual_time

FOUNDER = Founder()
SWARM = FOUNDER.warrant.swarm


def clock() -> float:
    return EPOCH_S + asyncio.get_running_loop().time()


@asynccontextmanager
async def members(
    network: MemoryNetwork, count: int, files: dict[int, NewsFile] | None = None
) -> AsyncIterator[list[Inside]]:
    async with AsyncExitStack() as stack:
        found = []
        for number in range(count):
            identity = fake_identity(number)
            guard = Guard(FOUNDER.grant(identity), identity.sign, News(SWARM), wall_clock=clock)
            entrance = Entrance("club", guard, (files or {}).get(number))
            gate = entrance.gate(await stack.enter_async_context(network.transport(identity.peer)))
            inside = entrance.inside(gate)
            tasks = await stack.enter_async_context(Tasks())
            tasks.start(inside.teller.run(), name="tidings")
            await gate.serve(WHOIS, _listen)
            found.append(inside)
        await asyncio.sleep(0)
        yield found


async def _listen(stream: object) -> None:
    await asyncio.Event().wait()


async def meet(network: MemoryNetwork, one: Inside, other: PeerId) -> None:
    await one.gate.connect(other, network.transports[other].addresses)
    await one.gate.open_stream(other, WHOIS)


def digests(found: list[Inside]) -> int:
    return len({each.guard.news.digest for each in found})


async def test_news_goes_round_and_the_revoked_are_cut_off() -> None:
    network = MemoryNetwork(line=Line(latency_s=0.02))
    async with members(network, 12) as found:
        peers = [each.gate.peer for each in found]
        for number, each in enumerate(found):
            await meet(network, each, peers[(number + 1) % 12])
            await meet(network, each, peers[(number + 5) % 12])
        found[3].guard.news.add(FOUNDER.revoke(key_of(peers[0])), clock())
        found[3].teller._heard()
        await asyncio.sleep(2)
        assert digests(found[1:]) == 1
        assert not any(each.gate.admits(peers[0]) for each in found[1:])
        with pytest.raises(PeerDenied, match="revoked"):
            await meet(network, found[0], peers[1])


async def test_a_newcomer_hears_all_that_there_is_when_it_greets() -> None:
    network = MemoryNetwork(line=Line(latency_s=0.02))
    async with members(network, 2) as found:
        for number in range(40):
            target = key_of(fake_identity(100 + number).peer)
            found[0].guard.news.add(FOUNDER.revoke(target), clock())
        await meet(network, found[1], found[0].gate.peer)
        await asyncio.sleep(2)
        assert len(found[1].guard.news) == 40


async def test_what_another_process_of_the_home_has_written_is_told(tmp_path: Path) -> None:
    network, file = MemoryNetwork(line=Line(latency_s=0.02)), NewsFile(tmp_path / "news", SWARM)
    async with members(network, 2, {0: file}) as found:
        await meet(network, found[1], found[0].gate.peer)
        theirs = News(SWARM)
        theirs.add(FOUNDER.revoke(key_of(fake_identity(50).peer)), clock())
        file.save(theirs, now=clock())
        await asyncio.sleep(3)
        assert [len(each.guard.news) for each in found] == [1, 1]


async def test_news_survives_on_disk_and_a_damaged_file_is_none(tmp_path: Path) -> None:
    file, news = NewsFile(tmp_path / "news", SWARM), News(SWARM)
    for number in (50, 51):
        news.add(FOUNDER.revoke(key_of(fake_identity(number).peer)), clock())
    file.save(news, now=clock())
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.load(now=clock()).digest == news.digest
    data = file.path.read_bytes()
    for damaged in (b"", data[:-1], data + b"x", b"\xff" * 100):
        file.path.write_bytes(damaged)
        assert len(file.load(now=clock())) in (0, 1)
