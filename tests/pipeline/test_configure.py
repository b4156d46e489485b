"""Who is told what when a chain is configured: the new ones are asked, the others are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from p2pnode.errors import PeerLost, PeerMisbehaved, PeerRefused, PeerTimeout
from p2pnode.net.memory import fake_peer_id
from p2pnode.pipeline.configure import Configuration, Terms, int64
from p2pnode.pipeline.hops import HopState
from p2pnode.pipeline.line import Line
from p2pnode.tasks import Tasks
from p2pnode.types import Chain, Hop, LayerRange, ModelSpec, PeerId, Sampling
from p2pnode.wire.messages import Open, Opened, Refused, Reroute, Rerouted
from tests.support.hostile import SESSION

pytestmark = pytest.mark.virtual_time

SPEC = ModelSpec(
    name="tiny",
    fingerprint="ab" * 32,
    family="llama",
    num_layers=9,
    hidden_size=32,
    vocab_size=512,
    max_positions=256,
)
TOKENS = list(range(100, 300))
PAGES = b"n" * 16 + b"m" * 16

Answer = Callable[[Any], object | None]


class FakeLink:
    """Notes what is sent in a log that all share, and answers after 10 ms."""

    def __init__(self, swarm: FakeSwarm, peer: PeerId) -> None:
        self.is_open = True
        self.peer = peer
        self._swarm = swarm

    def agree_on(self, lossy: str) -> None:
        assert lossy == ""

    def send(self, message: Any) -> None:
        self._swarm.log.append((self.peer, message))
        self._swarm.answer_soon(self.peer, message)


class FakeSwarm:
    """Hops that answer as they should, unless ``answers`` says otherwise."""

    def __init__(self, num_hops: int = 3) -> None:
        self.log: list[tuple[PeerId, Any]] = []
        self.answers: dict[PeerId, Answer] = {}
        self.connected: list[PeerId] = []
        self.hops = [
            HopState(Hop(fake_peer_id(n), LayerRange(3 * n, 3 * n + 3), (f"/memory/{n}",)))
            for n in range(num_hops)
        ]

    async def connect(self, peer: PeerId, addresses: tuple[str, ...]) -> Any:
        self.connected.append(peer)
        return FakeLink(self, peer)

    def answer_soon(self, peer: PeerId, message: Any) -> None:
        hop = next(hop for hop in self.hops if hop.peer == peer)
        answer = self.answers.get(peer, well)(message)
        if answer is not None:
            asyncio.get_running_loop().call_later(0.01, hop.answer, answer)

    async def configure(
        self, epoch: int = 1, *, is_local: bool = False, repetition_penalty: float = 1.0
    ) -> int:
        sampling = Sampling(repetition_penalty=repetition_penalty)
        terms = Terms(
            session=SESSION,
            spec=SPEC,
            sampling=sampling,
            max_tokens=250,
            has_local_ends=is_local,
            pages=PAGES,
        )
        chain = Chain(tuple(hop.hop for hop in self.hops), "float32")
        configuration = Configuration(terms, epoch, chain, self.hops, Line(TOKENS))
        return await configuration.apply(self, timeout_s=10.0)  # type: ignore[arg-type]

    def replace(self, *indexes: int) -> None:
        """Put newcomers in these places."""
        for index in indexes:
            hop = self.hops[index].hop
            self.hops[index] = HopState(Hop(fake_peer_id(100 + index), hop.layers))
        self.log.clear()
        self.connected.clear()


def well(message: Any) -> object:
    """The right answer."""
    if isinstance(message, Open):
        return Opened(session=SESSION, layer=message.layers.start, epoch=message.epoch)
    return Rerouted(
        session=SESSION,
        layer=message.layer,
        epoch=message.epoch,
        position=message.position,
        replays_from=0,
    )


def told(swarm: FakeSwarm) -> list[tuple[int, type]]:
    """Which hop was told what, in order."""
    peers = [hop.peer for hop in swarm.hops]
    return [(peers.index(peer), type(message)) for peer, message in swarm.log]


async def test_a_new_chain_is_opened_with_its_neighbours() -> None:
    swarm = FakeSwarm()
    await swarm.configure()
    assert sorted(swarm.connected) == sorted(hop.peer for hop in swarm.hops)
    opens = sorted((message for _, message in swarm.log), key=lambda message: message.layers)
    peers = [hop.peer for hop in swarm.hops]
    assert [each.previous for each in opens] == [None, *peers[:2]]
    assert [each.next for each in opens] == [*peers[1:], None]
    assert [each.next_addresses for each in opens] == [("/memory/1",), ("/memory/2",), ()]
    assert [each.send_from for each in opens] == [0, 0, len(TOKENS) - 1]
    assert [each.sampling is None for each in opens] == [True, True, False]
    assert [hop.held for hop in swarm.hops] == [0, 0, 0]


async def test_tokens_are_told_only_to_a_last_hop_that_needs_them() -> None:
    for penalty, has_tokens in ((1.0, False), (1.2, True)):
        swarm = FakeSwarm()
        await swarm.configure(repetition_penalty=penalty)
        opens = {message.layers.start: message for _, message in swarm.log}
        assert [opens[layer].token_ids is None for layer in (0, 3)] == [True, True]
        assert (opens[6].token_ids == int64(TOKENS)) is has_tokens
    local = FakeSwarm()
    await local.configure(is_local=True, repetition_penalty=1.2)
    assert all(message.sampling is None for _, message in local.log)
    assert all(message.token_ids is None for _, message in local.log)


async def test_those_that_stay_are_told_when_the_newcomer_has_its_place() -> None:
    swarm = FakeSwarm()
    await swarm.configure()
    for hop in swarm.hops:
        hop.held = len(TOKENS)
    swarm.replace(1)
    await swarm.configure(2)
    assert told(swarm) == [(1, Open), (0, Reroute), (2, Reroute)]
    messages = dict(swarm.log)
    replay = messages[swarm.hops[0].peer]
    assert (replay.position, replay.send_from) == (len(TOKENS), 0)
    assert messages[swarm.hops[1].peer].send_from == len(TOKENS) - 1, "what the last one keeps"
    assert messages[swarm.hops[2].peer].position == len(TOKENS) - 1
    assert [hop.held for hop in swarm.hops] == [200, 0, 199]


def holds(num_tokens: int) -> Answer:
    """So much, from an earlier session."""

    def answer(message: Any) -> object:
        layer = message.layers.start
        return Opened(session=SESSION, layer=layer, epoch=1, position=num_tokens)

    return answer


@pytest.mark.parametrize(
    ("held", "begins_at", "branch"),
    [((128, 64, 128), 64, 1), ((128, 0, 0), 0, 1), ((0, 0, 0), 0, 0)],
)
async def test_a_new_chain_begins_behind_what_all_hold(
    held: tuple[int, ...], begins_at: int, branch: int
) -> None:
    swarm = FakeSwarm()
    swarm.answers = {hop.peer: holds(each) for hop, each in zip(swarm.hops, held, strict=True)}
    assert await swarm.configure() == branch
    assert [hop.held for hop in swarm.hops] == [begins_at] * 3


async def test_a_newcomer_among_others_is_not_asked_what_it_holds() -> None:
    swarm = FakeSwarm()
    await swarm.configure()
    assert {message.pages for _, message in swarm.log} == {PAGES}
    swarm.replace(1)
    await swarm.configure(2)
    assert [message.pages for _, message in swarm.log if isinstance(message, Open)] == [b""]


async def test_a_hop_cannot_hold_what_was_not_named() -> None:
    swarm = FakeSwarm()
    swarm.answers[swarm.hops[1].peer] = holds(129)
    with pytest.raises(PeerMisbehaved, match="holds 129 tokens"):
        await swarm.configure()


async def test_nobody_is_waited_for_when_all_have_a_place_already() -> None:
    swarm = FakeSwarm()
    await swarm.configure()
    began = asyncio.get_running_loop().time()
    await swarm.configure(2)
    assert told(swarm)[-3:] == [(0, Reroute), (1, Reroute), (2, Reroute)]
    assert asyncio.get_running_loop().time() == began


async def test_a_last_hop_that_stood_by_is_told_the_tokens_that_it_needs() -> None:
    swarm = FakeSwarm()
    await swarm.configure(repetition_penalty=1.2)
    await swarm.configure(2, repetition_penalty=1.2)
    reroutes = [message for _, message in swarm.log if isinstance(message, Reroute)]
    assert [each.token_ids for each in reroutes] == [None, None, int64(TOKENS)]


async def test_a_hop_that_has_forgotten_gets_its_input_again() -> None:
    swarm = FakeSwarm(4)
    await swarm.configure()
    for hop in swarm.hops:
        hop.held = len(TOKENS)
    swarm.hops[1].replays_from = 2
    swarm.replace(2)
    await swarm.configure(2)
    messages = dict(swarm.log)
    assert [hop.held for hop in swarm.hops] == [200, 0, 0, 199]
    assert messages[swarm.hops[0].peer].send_from == 0
    assert messages[swarm.hops[1].peer].position == 0


async def test_a_refusal_is_raised_with_its_reason() -> None:
    swarm = FakeSwarm()
    swarm.answers[swarm.hops[1].peer] = lambda message: Refused(
        session=SESSION, layer=3, epoch=1, reason="no room", retry_after_s=2.5
    )
    with pytest.raises(PeerRefused, match="no room") as caught:
        await swarm.configure()
    assert caught.value.peer == swarm.hops[1].peer
    assert caught.value.retry_after_s == 2.5


@pytest.mark.parametrize("silent", range(3))
async def test_the_one_who_does_not_answer_is_blamed(silent: int) -> None:
    swarm = FakeSwarm()
    swarm.answers[swarm.hops[silent].peer] = lambda message: None
    with pytest.raises(PeerTimeout, match="within 10 s") as caught:
        await swarm.configure()
    assert caught.value.peer == swarm.hops[silent].peer


async def test_an_answer_to_another_question_is_misbehaviour() -> None:
    swarm = FakeSwarm()
    swarm.answers[swarm.hops[2].peer] = lambda message: Rerouted(
        session=SESSION, layer=6, epoch=1, position=0, replays_from=0
    )
    with pytest.raises(PeerMisbehaved, match="answered with Rerouted"):
        await swarm.configure()


async def test_a_link_that_is_lost_meanwhile_ends_the_wait() -> None:
    swarm = FakeSwarm()
    hop = swarm.hops[1]
    swarm.answers[hop.peer] = lambda message: None
    async with Tasks() as tasks:
        configuring = tasks.start(_swallow(swarm.configure()), name="configure")
        await asyncio.sleep(0.05)
        hop.fail(PeerLost(hop.peer, "gone"))
        error = await configuring
    assert isinstance(error, PeerLost)
    assert asyncio.get_running_loop().time() < 1.0


async def _swallow(work: Any) -> Exception | None:
    try:
        await work
    except PeerLost as error:
        return error
    return None
