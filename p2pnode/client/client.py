"""Generate text across the swarm. One request, from the top: `Client.stream`.

async with p2pnode.Client() as client:
    async for event in client.stream("Once upon a time"):
        ...
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from p2pnode.client.defaults import default_config, real_network
from p2pnode.client.events import ChainChosen, Done, Embedding, Event
from p2pnode.client.holders import Holders
from p2pnode.client.model import AUTO, ClientModel, find_client_model
from p2pnode.client.outcome import Answer
from p2pnode.client.request import Prompt as Prompt
from p2pnode.client.request import Request, compiled, read_request, read_text
from p2pnode.client.router import Experience, SwarmRouter, Wishes
from p2pnode.client.seen import SwarmSeen
from p2pnode.config import ClientConfig
from p2pnode.errors import BadRequest, NoChain, PeerError, PeerRefused
from p2pnode.gossip.gossip import READ_EVERY_S, Gossip
from p2pnode.net.link import Link
from p2pnode.net.links import Links
from p2pnode.pipeline.configure import Terms
from p2pnode.pipeline.lookup import Lookup
from p2pnode.pipeline.roles import SessionLimits
from p2pnode.pipeline.session import ChainSession
from p2pnode.pipeline.speculation import Drafter
from p2pnode.routing.needs import Held
from p2pnode.swarm.network import Joined, Network
from p2pnode.swarm.view import SwarmReader
from p2pnode.tasks import Tasks, all_of
from p2pnode.types import Chain, Liveness, PeerHealth, PeerId, Sampling
from p2pnode.version import SOFTWARE
from p2pnode.wire.messages import Draining

log = logging.getLogger(__name__)

LEFT_FOR_S = 60.0
MAX_TEXTS_AT_ONCE = 8
"""Of one `Client.embed`: the others wait."""


class Client:
    """A participant that asks for text and serves nothing.

    ``async with`` joins the swarm, finds the model and its tokenizer, and leaves again. Many
    generations may run at once. Raises JoinFailed, UnknownModel, SeveralModels, ModelFilesError.
    """

    def __init__(
        self,
        *,
        join: Sequence[str] = (),
        invite: str = "",
        model: str | None = None,
        head: str = "remote",
        draft: str = AUTO,
        folder: Path | None = None,
        config: ClientConfig | None = None,
        network: Network | None = None,
    ) -> None:
        """invite: into a private swarm: the text, a file with it, or the swarm's name"""
        if head not in ("remote", "local"):
            raise BadRequest(f"head must be remote or local, not {head[:20]!r}")
        self._config = config or default_config(tuple(join), folder, draft, invite)
        self._model_name = model
        self._has_local_head = head == "local"
        self._network = network
        self._sessions: dict[bytes, ChainSession] = {}
        self._session_type = ChainSession
        self._experience = Experience()
        self._holders = Holders(is_on=self._config.keeps_prefixes)
        self._stack = AsyncExitStack()
        self._tasks: Tasks
        self._joined: Joined
        self._links: Links
        self._reader: SwarmReader
        self._gossip: Gossip
        self.model: ClientModel
        """The model in use; set by ``async with``, as is ``seen``."""
        self.seen: SwarmSeen

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            config, network = self._config, self._network or real_network(self._config)
            joined = self._joined = await stack.enter_async_context(network.join())
            gossip = self._gossip = Gossip(
                joined.transport.peer,
                None,
                members=lambda: self._reader.view(max_age_s=READ_EVERY_S),
                wall_clock=config.wall_clock,
                on_change=self._on_health,
                max_neighbours=config.gossip_neighbours,
            )
            clock = config.wall_clock
            self.seen = SwarmSeen(joined, gossip, self._experience, wall_clock=clock)
            self._reader = self.seen.reader
            self._links = await stack.enter_async_context(
                Links(
                    joined.transport,
                    self,
                    software=SOFTWARE,
                    connect_timeout_s=config.connect_timeout_s,
                    heartbeat=(config.heartbeat_interval_s, config.heartbeat_timeout_s),
                    control_events=gossip,
                )
            )
            self.seen.volumes = self._links.volumes
            self._tasks = await stack.enter_async_context(Tasks())
            self._tasks.start(gossip.run(self._links), name="gossip")
            self.model = await find_client_model(
                self._reader,
                self._model_name,
                config.cache,
                with_ends=self._has_local_head,
                draft=config.draft,
            )
            stack.callback(self.model.constraints.close)
            if self.model.draft is not None:
                await stack.enter_async_context(self.model.draft)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    async def wait_closed(self) -> None:
        """Return never while the network works; raises DaemonDied when it has failed for good."""
        await self._joined.transport.wait_closed()

    async def generate(self, prompt: Prompt, **options: Any) -> Done:
        """The whole answer at once; takes what `stream` takes and raises what it raises."""
        done: Done | None = None
        async with aclosing(self.stream(prompt, **options)) as events:
            async for event in events:
                if isinstance(event, Done):
                    done = event
        if done is None:
            raise NoChain("the generation ended without an answer")
        return done

    async def stream(
        self,
        prompt: Prompt,
        *,
        max_tokens: int | None = None,
        sampling: Sampling | None = None,
        stop: Sequence[str] = (),
        drafter: Drafter | None = None,
        resume_from: Sequence[int] = (),
    ) -> AsyncGenerator[Event, None]:
        """Generate, token by token: `ChainChosen` (again after a failover), `Token`..., `Done`.

        prompt: text, token ids, or chat messages; drafter: guesses ahead, in the place of the
        client's own. resume_from: tokens of the answer that the caller has (`NoChain.token_ids`);
        the answer goes on as if it had never been cut, `Done` has all of it. max_tokens: of the
        whole answer. Closing the iterator (or cancelling the task) frees every hop at once.
        Raises BadRequest, PromptTooLong, or NoChain, which then carries the answer so far.
        """
        clock, began = asyncio.get_running_loop().time, asyncio.get_running_loop().time()
        request = read_request(
            self.model,
            prompt,
            max_tokens=max_tokens,
            most_tokens=self._config.max_new_tokens,
            sampling=sampling,
            stop=stop,
            resume_from=resume_from,
        )
        request = await compiled(self.model, request)
        answer = Answer(self.model, request, began)
        held = self._holders.find(request.token_ids, max(1, request.num_left))
        terms = request.terms(self.model, self._holders.page_key)
        drafter = drafter or self.model.drafter(request)
        router = self._router(held, terms, drafter)
        session = self._session(router, request, terms, drafter)
        chain: Chain | None = None
        try:
            async with self.seen.runs.entry(session, answer.times), session:
                while not answer.finish_reason:
                    chosen = await session.next_token()
                    if session.chain is not None and session.chain is not chain:
                        chain = session.chain
                        yield ChainChosen(chain, session.failovers, router.explain())
                    yield answer.take(chosen, clock())
            yield replace(answer.done(session, self._links), peers=router.peers_seen())
        except NoChain as error:
            error.text = answer.finish()
            error.token_ids = tuple(session.token_ids[len(request.prompt_ids) :])
            raise
        finally:
            self._holders.note(session.kept_pages, session.chain)
            del self._sessions[session.id]

    async def embed(self, texts: Sequence[Prompt]) -> list[Embedding]:
        """The mean of the last hidden states of each text, after the model's final norm.

        Raises BadRequest, PromptTooLong, NoChain.
        """
        requests = [read_text(self.model, text) for text in texts]
        vectors: dict[int, tuple[float, ...]] = {}
        waiting = iter(enumerate(requests))

        async def embed_some() -> None:
            for index, request in waiting:
                vectors[index] = await self._mean(request)

        await all_of(*(embed_some() for _ in requests[:MAX_TEXTS_AT_ONCE]))
        pairs = enumerate(requests)
        return [Embedding(vectors[index], len(each.prompt_ids)) for index, each in pairs]

    async def _mean(self, request: Request) -> tuple[float, ...]:
        terms = request.terms(self.model, self._holders.page_key)
        session = self._session(self._router(Held(), terms, None), request, terms, None)
        try:
            async with session:
                return await session.mean()
        finally:
            del self._sessions[session.id]

    def _router(self, held: Held, terms: Terms, drafter: Drafter | None) -> SwarmRouter:
        config = self._config
        # A drafter that is often right guesses from here, and what it guesses takes no ring.
        is_plain = drafter is None or isinstance(drafter, Lookup)
        return SwarmRouter(
            reader=self._reader,
            links=self._links,
            spec=self.model.spec,
            experience=self._experience,
            patience_s=config.no_chain_patience_s,
            local_head=self._has_local_head,
            has_ring=terms.closes_ring and is_plain,
            wishes=Wishes.of(config),
            held=held,
            here=lambda: self._gossip.coordinate,
            rtt_s=self._gossip.rtt_s,
        )

    def _session(
        self, router: SwarmRouter, request: Request, terms: Terms, drafter: Drafter | None
    ) -> ChainSession:
        session = self._session_type(
            links=self._links,
            tasks=self._tasks,
            router=router,
            limits=SessionLimits.of(self._config),
            terms=terms,
            token_ids=request.token_ids,
            ends=self.model.session_ends(request),
            drafter=drafter,
        )
        self._sessions[session.id] = session
        return session

    # --- events of links

    def on_message(self, link: Link, message: Any) -> None:
        """Hand a message to its session (`LinkEvents`); late ones are dropped."""
        if isinstance(message, Draining):
            self._on_draining(link.peer)
        session = self._sessions.get(getattr(message, "session", b""))
        if session is not None:
            session.inbox.on_message(link, message)

    def on_lost(self, link: Link, error: PeerError) -> None:
        """Tell all sessions (`LinkEvents`)."""
        for session in list(self._sessions.values()):
            session.inbox.on_lost(link, error)

    def _on_draining(self, peer: PeerId) -> None:
        """A peer leaves: sessions move, and no new one is put there."""
        now, left = asyncio.get_running_loop().time(), PeerRefused(peer, "is leaving", LEFT_FOR_S)
        self._experience.blame(left, self._reader.known(), now, is_linked=True)
        for session in self._sessions.values():
            session.inbox.on_draining(peer)

    def _on_health(self, peer: PeerId, known: PeerHealth) -> None:
        """Gossip tells of a change (`OnChange`)."""
        if known.liveness is Liveness.DEAD:
            for session in self._sessions.values():
                session.inbox.on_dead(peer)
        elif known.health.is_draining:
            self._on_draining(peer)
