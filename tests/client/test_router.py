"""The router of a client: over a directory, with what gossip and its sessions tell it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import MappingProxyType

import pytest

from p2pnode.client.router import Experience, SwarmRouter, Wishes
from p2pnode.errors import BadRequest, NoChain, PeerLost, PeerRefused
from p2pnode.net.links import Links
from p2pnode.net.memory import MemoryNetwork, fake_identity
from p2pnode.pipeline.roles import Outpaced
from p2pnode.swarm.view import SwarmReader
from p2pnode.types import (
    Announcement,
    Coordinate,
    LayerRange,
    ModelSpec,
    PeerHealth,
    PeerId,
    SwarmView,
)
from tests.support.peers import FINGERPRINT, NUM_LAYERS, announced, at, peer, shape, view

pytestmark = pytest.mark.virtual_time

SPEC = ModelSpec(
    name="tiny",
    fingerprint=FINGERPRINT,
    family="llama",
    num_layers=NUM_LAYERS,
    hidden_size=16,
    vocab_size=100,
    max_positions=1000,
)
THREE = (announced("A", "0-2"), announced("B", "3-5"), announced("C", "6-8"))


@dataclass
class FakeSwarm:
    """A directory and gossip that say what a test wants."""

    said: SwarmView
    num_readings: int = 0
    later: list[SwarmView] = field(default_factory=list)
    """What the next readings find."""

    async def publish(self, announcement: Announcement) -> None:
        raise NotImplementedError

    async def announcements(self) -> tuple[Announcement, ...]:
        self.num_readings += 1
        if self.later and self.num_readings > 1:
            self.said = self.later.pop(0)
        return self.said.announcements

    def health(self) -> dict[PeerId, PeerHealth]:
        return dict(self.said.health)


class Deaf:
    """Nobody to tell of messages (`LinkEvents`)."""

    def on_message(self, link: object, message: object) -> None:
        raise NotImplementedError

    def on_lost(self, link: object, error: object) -> None:
        raise NotImplementedError


@asynccontextmanager
async def router_over(
    swarm: FakeSwarm,
    *,
    experience: Experience | None = None,
    wishes: Wishes | None = None,
    here: Coordinate | None = None,
    has_ring: bool = False,
    rtts_s: Mapping[PeerId, float] = MappingProxyType({}),
) -> AsyncIterator[SwarmRouter]:
    loop = asyncio.get_running_loop()
    async with MemoryNetwork().transport(fake_identity(0).peer) as transport:
        links = Links(
            transport, Deaf(), software="test", connect_timeout_s=1.0, heartbeat=(0.5, 2.0)
        )
        async with links:
            yield SwarmRouter(
                reader=SwarmReader(
                    swarm, wall_clock=loop.time, monotonic=loop.time, health=swarm.health
                ),
                links=links,
                spec=SPEC,
                experience=experience or Experience(random.Random(0)),
                patience_s=5.0,
                local_head=False,
                has_ring=has_ring,
                wishes=wishes or Wishes(),
                here=lambda: here or Coordinate(),
                rtt_s=rtts_s.get,
            )


async def test_health_and_our_own_place_decide() -> None:
    both = (announced("A", "0-8"), announced("B", "0-8"))
    swarm = FakeSwarm(view(*both, A={"coordinate": at(0.1)}, B={"coordinate": at(-0.1)}))
    for x_s, chosen in ((0.1, "A 0-8"), (-0.1, "B 0-8")):
        async with router_over(swarm, here=at(x_s)) as router:
            assert shape(await router.chain(100)) == chosen


async def test_a_lost_peers_announcement_is_never_used_again_until_a_newer_one() -> None:
    stale = view(*THREE, announced("E", "3-5", latency_s=0.5))
    swarm = FakeSwarm(stale)
    async with router_over(swarm) as router:
        chain = await router.chain(100)
        assert shape(chain) == "A 0-2, B 3-5, C 6-8"
        router.blame(PeerLost(peer("B"), "gone"))
        chain = await router.mend(chain, frozenset({1}), 100)
        assert shape(chain) == "A 0-2, E 3-5, C 6-8"
        assert await router.standby(chain, 1, 100) is None
        assert shape(await router.chain(100)) == "A 0-2, E 3-5, C 6-8"
        anew = announced("B", "3-5", sequence=2)
        swarm.said = view(*(a for a in stale.announcements if a.peer != peer("B")), anew)
        await asyncio.sleep(40.0)  # the back-off is over, too
        router.blame(PeerRefused(peer("E"), "full", retry_after_s=10.0))
        assert shape(await router.chain(100)) == "A 0-2, B 3-5, C 6-8"


async def test_a_standby_is_found_and_refusals_are_left_out() -> None:
    swarm = FakeSwarm(view(*THREE, announced("E", "3-5"), announced("F", "3-8", latency_s=0.05)))
    async with router_over(swarm) as router:
        chain = await router.chain(100)
        spare = {"B": "E", "E": "B"}[shape(chain).split()[2]]
        first = await router.standby(chain, 1, 100)
        assert first is not None
        assert first.peer == peer(spare)
        assert first.layers == LayerRange(3, 6)
        router.blame(PeerRefused(peer(spare), "full"))
        second = await router.standby(chain, 1, 100)
        assert second is not None
        assert second.peer == peer("F")
        router.blame(PeerRefused(peer("F"), "full"))
        assert await router.standby(chain, 1, 100) is None


async def test_the_peer_that_failed_is_the_last_resort_of_the_mend() -> None:
    swarm = FakeSwarm(view(*THREE, announced("E", "3-5", latency_s=0.5)))
    async with router_over(swarm) as router:
        chain = await router.chain(100)
        router.blame(Outpaced(peer("B"), "late"))
        assert shape(await router.mend(chain, frozenset({1}), 100)) == "A 0-2, E 3-5, C 6-8"
        swarm.said = view(*THREE)
        await asyncio.sleep(30.0)
        assert shape(await router.mend(chain, frozenset({1}), 100)) == "A 0-2, B 3-5, C 6-8"


async def test_measured_steps_correct_the_next_choice() -> None:
    swarm = FakeSwarm(view(announced("A", "0-8"), announced("B", "0-8", latency_s=0.02)))
    experience = Experience(random.Random(0))
    async with router_over(swarm, experience=experience) as router:
        assert shape(await router.chain(100)) == "A 0-8"
        for _ in range(20):
            router.measured(peer("A"), 45 * 0.01, is_handed=False)
    async with router_over(swarm, experience=experience) as router:
        await asyncio.sleep(3.0)
        assert shape(await router.chain(100)) == "B 0-8"
    assert experience.reputation.records()[peer("A")].steps.total == 20


@pytest.mark.parametrize("has_ring", [False, True])
async def test_steps_as_predicted_correct_nothing(*, has_ring: bool) -> None:
    """What is heard of a hop has come here, from it and from the hop before."""
    swarm = FakeSwarm(view(announced("A", "0-4"), announced("B", "5-8")))
    rtts_s = {peer("A"): 0.04, peer("B"): 0.1}
    experience = Experience(random.Random(0))
    way_s = (0.1 - 0.04) / 2  # to where a far one is at least, seen from here
    step_s = 0.01
    async with router_over(
        swarm, experience=experience, has_ring=has_ring, rtts_s=rtts_s
    ) as router:
        await router.chain(100)
        router.measured(peer("B"), way_s + step_s + 0.05 - 0.02, is_handed=False)
        router.measured(peer("A"), 0.02 + step_s + 0.02, is_handed=False)
        router.measured(peer("A"), way_s + step_s + 0.02 - 0.05, is_handed=True)
        found = experience.measured_s(asyncio.get_running_loop().time())
    pairs = {(None, peer("A")), (peer("A"), peer("B")), (peer("B"), peer("A"))}
    assert found == pytest.approx(dict.fromkeys(pairs, 0.0), abs=1e-9)
    assert experience.reputation.records()[peer("A")].steps.total == 2


async def test_where_tokens_come_round_peers_near_each_other_are_chosen() -> None:
    places = {"A": at(0.01), "B": at(0.21), "C": at(0.2)}
    healths: dict[str, dict[str, object]] = {n: {"coordinate": c} for n, c in places.items()}
    peers = (announced("A", "0-4"), announced("B", "0-4"), announced("C", "5-8"))
    swarm = FakeSwarm(view(*peers, **healths))
    for has_ring, chosen in ((False, "A 0-4, C 5-8"), (True, "B 0-4, C 5-8")):
        async with router_over(swarm, here=at(0.0), has_ring=has_ring) as router:
            assert shape(await router.chain(100)) == chosen


async def test_what_is_usual_comes_from_health() -> None:
    times = {"step_times": ((1, 0.02, 0.02),)}
    peers = [announced(name, "3-5") for name in "BEF"]
    swarm = FakeSwarm(view(*peers, B=times, E=times, F=times))
    async with router_over(swarm) as router:
        assert router.usual_s(LayerRange(3, 6), 1) is None, "nothing has been read yet"
        await asyncio.sleep(2.0)
        with pytest.raises(NoChain):
            await router.chain(100)
        assert router.usual_s(LayerRange(3, 6), 1) == pytest.approx(0.02)
        assert router.usual_s(LayerRange(0, 3), 1) is None


async def test_a_full_swarm_is_asked_again_for_a_while() -> None:
    full = view(announced("A", "0-8"), A={"kv_free_tokens": 0})
    swarm = FakeSwarm(full, later=[full, full, view(announced("A", "0-8"))])
    async with router_over(swarm) as router:
        assert shape(await router.chain(100)) == "A 0-8"
    async with router_over(FakeSwarm(full)) as router:
        began = asyncio.get_running_loop().time()
        with pytest.raises(NoChain, match="no peer has room"):
            await router.chain(100)
        assert 5.0 <= asyncio.get_running_loop().time() - began < 7.0


async def test_a_chain_slower_than_asked_for_is_refused_at_once_and_mended_all_the_same() -> None:
    swarm = FakeSwarm(view(*THREE, announced("E", "3-5", latency_s=0.5)))
    began = asyncio.get_running_loop().time()
    async with router_over(swarm, wishes=Wishes(min_tokens_per_s=50.0)) as router:
        with pytest.raises(NoChain, match="90 ms per token, 70 ms more than the 20 ms asked for"):
            await router.chain(100)
        assert asyncio.get_running_loop().time() - began < 0.1
    async with router_over(swarm, wishes=Wishes(max_token_s=0.1)) as router:
        chain = await router.chain(100)
        router.blame(PeerLost(peer("B"), "gone"))
        assert shape(await router.mend(chain, frozenset({1}), 100)) == "A 0-2, E 3-5, C 6-8"


async def test_a_speed_that_cannot_be_is_the_callers_error() -> None:
    with pytest.raises(BadRequest, match="max_token_s must be above 0, not 0"):
        Wishes(max_token_s=0.0)
    with pytest.raises(BadRequest, match="min_tokens_per_s must be above 0, not -1"):
        Wishes(min_tokens_per_s=-1.0)


async def test_the_explanation_is_that_of_the_choice_that_was_made() -> None:
    like = FakeSwarm(view(*(announced(name, "0-8") for name in "ABCEFGHJK")))
    for seed in range(3):
        experience = Experience(random.Random(seed))
        async with router_over(like, experience=experience, wishes=Wishes(explains=True)) as router:
            assert router.explain() is None
            chain = await router.chain(100)
            explanation = router.explain()
            assert explanation is not None
            assert explanation.chosen.chain == chain
            await router.mend(chain, frozenset({0}), 100)
            assert router.explain() is None


async def test_sixteen_sessions_of_one_client_spread_over_like_peers() -> None:
    swarm = FakeSwarm(view(*(announced(name, "0-8") for name in "ABCE")))
    async with router_over(swarm) as router:
        chosen = [shape(await router.chain(100))[0] for _ in range(16)]
    assert max(map(chosen.count, "ABCE")) <= 6
