"""What a request says about the choice of tokens reaches the hop that chooses, and comes back."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.streams import events_of
from tests.gateway.swarms import gateway_on
from tests.support.models import greedy

PROMPT = [1, 403, 407, 261, 378, 31, 76, 99]
SHORT: dict[str, Any] = {"prompt": PROMPT, "max_tokens": 4, "temperature": 0}
CHAT: dict[str, Any] = {
    "messages": [
        {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
        {"role": "user", "content": "Hi."},
    ],
    "temperature": 0,
}

pytestmark = pytest.mark.virtual_time


async def test_a_bias_forbids_and_demands_tokens(tiny: Path, cache: Path) -> None:
    first = greedy(tiny, PROMPT, 1)[0]
    async with gateway_on(tiny, cache) as asked:
        without = await asked.post("/v1/completions", **SHORT, logit_bias={str(first): -100})
        only = await asked.post("/v1/completions", **SHORT, logit_bias={"300": 100})
        text = asked.codec.shown(300)
    assert without.json()["choices"][0]["text"]
    assert only.json()["choices"][0]["text"].strip() == (text * 4).strip()


async def test_completions_tell_how_likely_their_tokens_were(tiny: Path, cache: Path) -> None:
    async with gateway_on(tiny, cache) as asked:
        whole = (await asked.post("/v1/completions", **SHORT, logprobs=2)).json()
        stream = await asked.post("/v1/completions", **SHORT, logprobs=2, stream=True)
    told = whole["choices"][0]["logprobs"]
    assert {name: len(values) for name, values in told.items()} == dict.fromkeys(
        ("tokens", "token_logprobs", "top_logprobs", "text_offset"), 4
    )
    assert all(-20.0 < logprob <= 0.0 for logprob in told["token_logprobs"])
    chunks = [chunk["choices"][0]["logprobs"] for chunk in events_of(stream.text)[:-1]]
    streamed = [each for each in chunks if each]
    for name in ("tokens", "text_offset"):
        assert [value for each in streamed for value in each[name]] == told[name]


async def test_chats_tell_the_alternatives_best_first(builtin: Path, cache: Path) -> None:
    async with gateway_on(builtin, cache, "0-26") as asked:
        path = "/v1/chat/completions"
        answer = await asked.post(path, **CHAT, max_tokens=2, logprobs=True, top_logprobs=3)
    for token in answer.json()["choices"][0]["logprobs"]["content"]:
        tops = token["top_logprobs"]
        assert tops[0]["logprob"] == token["logprob"], "greedy takes the most likely one"
        assert tops == sorted(tops, key=lambda top: -top["logprob"])
        assert math.exp(sum(top["logprob"] for top in tops)) <= 1.0
        assert bytes(token["bytes"]).decode() == token["token"]


async def test_an_answer_satisfies_the_schema_that_was_asked_for(
    builtin: Path, cache: Path
) -> None:
    schema = {
        "type": "object",
        "properties": {"fine": {"type": "boolean"}},
        "required": ["fine"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    async with gateway_on(builtin, cache, "0-26") as asked:
        path = "/v1/chat/completions"
        answer = await asked.post(path, **CHAT, max_tokens=200, response_format=wanted)
        bad = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "colour"}}}
        refused = await asked.post(path, **CHAT, response_format=bad)
        huge = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"a": "x" * 20_000}}}
        too_long = await asked.post(path, **CHAT, response_format=huge)
    made = json.loads(answer.json()["choices"][0]["message"]["content"])
    assert isinstance(made["fine"], bool)
    assert set(made) == {"fine"}
    assert (refused.status_code, too_long.status_code) == (400, 400)
    assert refused.json()["error"]["code"] == "invalid_json_schema"
    assert too_long.json()["error"]["param"] == "response_format"


async def test_embeddings_are_one_vector_per_text(tiny: Path, cache: Path) -> None:
    async with gateway_on(tiny, cache, "0-3", "4-8") as asked:
        one = (await asked.post("/v1/embeddings", input="Once upon")).json()
        many = await asked.post("/v1/embeddings", input=["Once upon", "a time"])
        packed = await asked.post("/v1/embeddings", input="Once upon", encoding_format="base64")
    vectors = [each["embedding"] for each in many.json()["data"]]
    assert len(vectors) == 2
    assert vectors[0] == pytest.approx(one["data"][0]["embedding"], abs=1e-4)
    assert one["usage"]["prompt_tokens"] > 0
    assert isinstance(packed.json()["data"][0]["embedding"], str)
