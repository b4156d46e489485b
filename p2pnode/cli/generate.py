"""``p2pnode generate``: one answer, streamed."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from p2pnode.cli.options import Home, Invite, Join, Json, Lan, Model, client_swarm
from p2pnode.cli.output import Output
from p2pnode.config import ClientConfig
from p2pnode.sampling import MAX_CONSTRAINT_BYTES
from p2pnode.types import Sampling

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
PresencePenalty = Annotated[
    float,
    typer.Option("--presence-penalty", help="-2 to 2; above 0 avoids tokens of the answer so far."),
]
FrequencyPenalty = Annotated[
    float,
    typer.Option("--frequency-penalty", help="The same, the more the more often they were used."),
]
JsonSchema = Annotated[
    Path | None,
    typer.Option(
        "--json-schema", metavar="FILE", help="The answer is JSON that satisfies this schema."
    ),
]
Logprobs = Annotated[
    int | None,
    typer.Option(
        "--logprobs",
        metavar="N",
        help="With --json: how likely each token was to the model, and the N most likely ones.",
    ),
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
Draft = Annotated[
    str,
    typer.Option(
        "--draft",
        metavar="auto|lookup|none|FOLDER",
        help="What guesses the next tokens, so that they come sooner; never changes the text.",
    ),
]
MaxTokenMs = Annotated[
    float | None,
    typer.Option(
        "--max-token-ms",
        min=0.001,
        help="Take only a chain that should need no longer per token; else say what is in the way.",
    ),
]
MinTokensPerS = Annotated[
    float | None,
    typer.Option(
        "--min-tokens-per-s", min=0.001, help="The same, as the least number of tokens per second."
    ),
]
Explain = Annotated[
    bool,
    typer.Option(
        "--explain",
        help="Show why these peers were chosen, who came next, and how steady they have been.",
    ),
]


def generate(
    prompt: Annotated[str, typer.Argument(help="The text to go on from.")],
    *,
    model: Model = None,
    join: Join = None,
    invite: Invite = None,
    lan: Lan = False,
    max_tokens: MaxTokens = None,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    top_k: TopK = 0,
    min_p: MinP = 0.0,
    repetition_penalty: RepetitionPenalty = 1.0,
    presence_penalty: PresencePenalty = 0.0,
    frequency_penalty: FrequencyPenalty = 0.0,
    json_schema: JsonSchema = None,
    logprobs: Logprobs = None,
    stop: Stop = None,
    seed: Seed = None,
    head: Head = "remote",
    draft: Draft = "auto",
    max_token_ms: MaxTokenMs = None,
    min_tokens_per_s: MinTokensPerS = None,
    explain: Explain = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Go on from a text, through a chain of peers."""
    swarm = client_swarm(join, home, invite, lan=lan)
    sampling = sampling_of(
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        presence_penalty=presence_penalty,
        frequency_penalty=frequency_penalty,
        constraint=schema_of(json_schema),
        num_logprobs=logprobs,
        seed=seed,
    )
    options = {"max_tokens": max_tokens, "sampling": sampling, "stop": tuple(stop or ())}
    from p2pnode.cli.answer import generate_once  # heavy: torch
    from p2pnode.cli.run import run_async
    from p2pnode.client.client import Client

    config = ClientConfig(
        swarm=swarm,
        cache=swarm.home.cache,
        max_token_s=seconds(max_token_ms),
        min_tokens_per_s=min_tokens_per_s,
        draft=draft,
        explains=explain,
    )
    client = Client(model=model, head=head, config=config)
    run_async(generate_once(client, prompt, options, Output(as_json=json)))


def seconds(milliseconds: float | None) -> float | None:
    """What `--max-token-ms` says, in our unit."""
    return None if milliseconds is None else milliseconds / 1e3


def schema_of(file: Path | None) -> str:
    """The text of a file, as much of it as a constraint may have; else a usage error."""
    if file is None:
        return ""
    try:
        with file.open(encoding="utf-8") as opened:
            return opened.read(MAX_CONSTRAINT_BYTES + 1)
    except (OSError, UnicodeDecodeError) as error:
        what = f"cannot read {file}: {getattr(error, 'strerror', '') or 'it is not UTF-8 text'}"
        raise typer.BadParameter(what, param_hint="--json-schema") from error


def sampling_of(*, temperature: float, seed: int | None, **options: Any) -> Sampling:
    """How to choose tokens; without a seed every answer is another one. Else a usage error."""
    try:
        seed = secrets.randbits(62) if seed is None and temperature else seed or 0
        return Sampling(temperature=temperature, seed=seed, **options)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
