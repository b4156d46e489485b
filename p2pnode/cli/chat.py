"""``p2pnode chat``: a conversation, through the model's chat template."""

from __future__ import annotations

from typing import Annotated

import typer

from p2pnode.cli.generate import (
    Draft,
    Head,
    MaxTokenMs,
    MaxTokens,
    MinTokensPerS,
    RepetitionPenalty,
    Seed,
    Temperature,
    TopP,
    sampling_of,
    seconds,
)
from p2pnode.cli.options import Home, Invite, Join, Lan, Model, client_swarm
from p2pnode.config import ClientConfig


def chat(
    *,
    model: Model = None,
    join: Join = None,
    invite: Invite = None,
    lan: Lan = False,
    system: Annotated[
        str | None, typer.Option("--system", metavar="TEXT", help="How the model shall behave.")
    ] = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = 0.7,
    top_p: TopP = 0.95,
    repetition_penalty: RepetitionPenalty = 1.0,
    seed: Seed = None,
    head: Head = "remote",
    draft: Draft = "auto",
    max_token_ms: MaxTokenMs = None,
    min_tokens_per_s: MinTokensPerS = None,
    home: Home = None,
) -> None:
    """Talk with a model: Ctrl-C cuts an answer short, Ctrl-D leaves."""
    swarm = client_swarm(join, home, invite, lan=lan)
    sampling = sampling_of(
        temperature=temperature, top_p=top_p, repetition_penalty=repetition_penalty, seed=seed
    )
    history = [{"role": "system", "content": system}] if system else []
    options = {"max_tokens": max_tokens, "sampling": sampling}
    from p2pnode.cli.conversation import talk  # heavy: torch
    from p2pnode.client.client import Client

    config = ClientConfig(
        swarm=swarm,
        cache=swarm.home.cache,
        max_token_s=seconds(max_token_ms),
        min_tokens_per_s=min_tokens_per_s,
        draft=draft,
    )
    client = Client(model=model, head=head, config=config)
    talk(client, history, options)
