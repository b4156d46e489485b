"""An answer on the command line, as it comes: what `generate` and `chat` run and show."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from p2pnode.cli.exits import Failed
from p2pnode.cli.output import Output, chain_fields, layers_of
from p2pnode.cli.peers_seen import peers_seen_fields, show_peers_seen
from p2pnode.cli.why import show_explanation
from p2pnode.client.client import Client
from p2pnode.client.events import ChainChosen, Done, Event, Token
from p2pnode.errors import P2PNodeError
from p2pnode.types import Chain


async def generate_once(
    client: Client, prompt: str, options: dict[str, Any], output: Output
) -> None:
    """Join, answer, leave; an error carries what there is of the answer."""
    answer = Answer(output)
    try:
        async with client:
            await answer.stream(client, prompt, options)
    except P2PNodeError as error:
        raise answer.failed(error) from error


@dataclass(slots=True)
class Answer:
    """An answer as it comes, shown as it comes; what there is of it outlives its end."""

    output: Output
    pieces: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    prompt_tokens: int = 0
    chain: Chain = field(default_factory=lambda: Chain((), ""))
    failovers: int = 0
    began: float = field(default_factory=time.monotonic)
    first: float = 0.0

    async def stream(self, client: Client, prompt: Any, options: dict[str, Any]) -> None:
        """Generate and show; when cancelled, every hop is free before this ends."""
        self.prompt_tokens = len(client.model.encode(prompt))
        self.began = time.monotonic()
        try:
            async with aclosing(client.stream(prompt, **options)) as events:
                async for event in events:
                    self._show(event)
        except asyncio.CancelledError:
            self._end("cancelled", "".join(self.pieces))
            raise

    def failed(self, error: P2PNodeError) -> Failed:
        """The error, with the layers it is about and what there is of the answer."""
        if self.pieces:
            self.output.write("\n")
        text = getattr(error, "text", "") or "".join(self.pieces)
        return Failed(error, layers=layers_of(error), text=text, token_ids=self.token_ids)

    def _show(self, event: Event) -> None:
        if isinstance(event, ChainChosen):
            self.chain, self.failovers = event.chain, event.failovers
            self.output.event("chain", chain=chain_fields(event.chain))
            if event.explanation is not None:
                show_explanation(self.output, event.explanation)
            if not event.failovers:
                self.output.note(f"chain: {event.chain}")
        elif isinstance(event, Token):
            self._token(event)
        else:
            self._done(event)

    def _token(self, token: Token) -> None:
        self.first = self.first or time.monotonic()
        self.token_ids.append(token.token_id)
        self.pieces.append(token.text)
        fields: dict[str, Any] = {"position": token.position, "token_id": token.token_id}
        if token.logprob is not None:
            tops = [dataclasses.asdict(each) for each in token.top_logprobs]
            fields |= {"logprob": token.logprob, "top_logprobs": tops}
        self.output.event("token", **fields, text=token.text)
        self.output.write(token.text)

    def _done(self, done: Done) -> None:
        self.output.write(done.text[len("".join(self.pieces)) :])
        if done.peers:
            self.output.event("peers", peers=peers_seen_fields(done.peers))
        self._end(done.finish_reason, done.text, done.ttft_s, done.tokens_per_s)
        show_peers_seen(self.output, done.peers)

    def _end(
        self, reason: str, text: str, ttft_s: float | None = None, tokens_per_s: float | None = None
    ) -> None:
        now = time.monotonic()
        if ttft_s is None:
            ttft_s = self.first - self.began if self.first else 0.0
        if tokens_per_s is None:
            tokens_per_s = (len(self.token_ids) - 1) / (now - self.first) if self.first else 0.0
        self.output.event(
            "done",
            text=text,
            token_ids=self.token_ids,
            prompt_tokens=self.prompt_tokens,
            finish_reason=reason,
            chain=chain_fields(self.chain),
            failovers=self.failovers,
            ttft_s=ttft_s,
            tokens_per_s=tokens_per_s,
        )
        self.output.write("\n")
        figures = f"{len(self.token_ids)} tokens, {tokens_per_s:.1f} tokens/s, "
        figures += f"the first after {ttft_s:.2f} s"
        if self.failovers:
            figures += f"; failovers: {self.failovers}, then {self.chain}"
        self.output.note(figures)
