"""``p2pnode generate``: one answer, streamed."""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from p2pnode.cli.options import Home, Join, Json, Model, client_swarm
from p2pnode.cli.output import Failed, Output, chain_fields, layers_of
from p2pnode.cli.run import run_async
from p2pnode.config import ClientConfig
from p2pnode.errors import P2PNodeError
from p2pnode.types import Chain, Sampling

if TYPE_CHECKING:
    from p2pnode.client.client import Client
    from p2pnode.client.events import Done, Event

MaxTokens = Annotated[
    int | None, typer.Option("--max-tokens", min=1, help="The longest answer, in tokens.")
]
Temperature = Annotated[
    float, typer.Option("--temperature", help="0 always takes the best token; 1 as trained.")
]
TopP = Annotated[float, typer.Option("--top-p", help="Keep the best tokens of this probability.")]
TopK = Annotated[int, typer.Option("--top-k", help="Keep this many best tokens; 0 keeps all.")]
MinP = Annotated[float, typer.Option("--min-p", help="Drop what is this much less likely.")]
RepetitionPenalty = Annotated[
    float, typer.Option("--repetition-penalty", help="Above 1 avoids tokens used before.")
]
Stop = Annotated[
    list[str] | None,
    typer.Option("--stop", metavar="TEXT", help="End before this text; may be repeated."),
]
Seed = Annotated[
    int | None, typer.Option("--seed", help="The same seed gives the same text on any chain.")
]
Head = Annotated[
    Literal["remote", "local"],
    typer.Option("--head", help="local keeps prompt and answer tokens on this machine."),
]


def generate(
    prompt: Annotated[str, typer.Argument(help="The text to go on from.")],
    *,
    model: Model = None,
    join: Join = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    top_k: TopK = 0,
    min_p: MinP = 0.0,
    repetition_penalty: RepetitionPenalty = 1.0,
    stop: Stop = None,
    seed: Seed = None,
    head: Head = "remote",
    home: Home = None,
    json: Json = False,
) -> None:
    """Go on from a text, through a chain of peers."""
    swarm = client_swarm(join, home)
    sampling = sampling_of(
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
    )
    answer = Answer(Output(as_json=json))
    options = {"max_tokens": max_tokens, "sampling": sampling, "stop": tuple(stop or ())}
    config = ClientConfig(swarm=swarm, cache=swarm.home.cache)
    run_async(_generate(config, model, head, prompt, options, answer))


def sampling_of(*, temperature: float, seed: int | None, **options: Any) -> Sampling:
    """How to choose tokens; without a seed every answer is another one. Else a usage error."""
    try:
        seed = secrets.randbits(62) if seed is None and temperature else seed or 0
        return Sampling(temperature=temperature, seed=seed, **options)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


async def _generate(
    config: ClientConfig,
    model: str | None,
    head: str,
    prompt: str,
    options: dict[str, Any],
    answer: Answer,
) -> None:
    from p2pnode.client.client import Client  # heavy: torch

    try:
        async with Client(model=model, head=head, config=config) as client:
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
        from p2pnode.client.events import ChainChosen, Token  # loaded by now

        if isinstance(event, ChainChosen):
            self.chain, self.failovers = event.chain, event.failovers
            self.output.event("chain", chain=chain_fields(event.chain))
            if not event.failovers:
                self.output.note(f"chain: {event.chain}")
        elif isinstance(event, Token):
            self._token(event.position, event.token_id, event.text)
        else:
            self._done(event)

    def _token(self, position: int, token_id: int, text: str) -> None:
        self.first = self.first or time.monotonic()
        self.token_ids.append(token_id)
        self.pieces.append(text)
        self.output.event("token", position=position, token_id=token_id, text=text)
        self.output.write(text)

    def _done(self, done: Done) -> None:
        self.output.write(done.text[len("".join(self.pieces)) :])
        self._end(done.finish_reason, done.text, done.ttft_s, done.tokens_per_s)

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
