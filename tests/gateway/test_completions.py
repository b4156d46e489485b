"""Answers over HTTP are the library's, in OpenAI's shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.gateway.streams import events_of
from tests.gateway.swarms import gateway_on
from tests.support.models import greedy

PROMPT = [1, 403, 407, 261, 378, 31, 76, 99]

pytestmark = pytest.mark.virtual_time


async def test_a_completion_is_what_the_unsplit_model_writes(tiny: Path, cache: Path) -> None:
    async with gateway_on(tiny, cache, "0-3", "4-8") as asked:
        answer = await asked.post("/v1/completions", prompt=PROMPT, max_tokens=8, temperature=0)
        expected = asked.codec.decode(greedy(tiny, PROMPT, 8))
    assert answer.status_code == 200
    made = answer.json()
    assert made["object"] == "text_completion"
    assert made["choices"][0]["text"].strip() == expected.strip()
    assert made["choices"][0]["finish_reason"] == "length"
    assert made["usage"]["prompt_tokens"] == len(PROMPT)
    assert made["usage"]["completion_tokens"] == 8
    layers = [hop["layers"] for hop in made["p2pnode"][0]["hops"]]
    assert layers == ["0-3", "4-8"]
    assert answer.headers["p2pnode-chain-id"] == made["p2pnode"][0]["chain_id"]
    timing = answer.headers["server-timing"]
    assert timing.count("hop0;dur=") == timing.count("hop1;dur=") == 1


async def test_a_stream_has_the_same_text_in_pieces_and_ends_with_done(
    tiny: Path, cache: Path
) -> None:
    ask: dict[str, Any] = {"prompt": PROMPT, "max_tokens": 8, "temperature": 0}
    async with gateway_on(tiny, cache) as asked:
        whole = (await asked.post("/v1/completions", **ask)).json()
        options = {"include_usage": True}
        answer = await asked.post("/v1/completions", **ask, stream=True, stream_options=options)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert len(answer.headers["p2pnode-chain-id"]) == 16
    events = events_of(answer.text)
    assert events[-1] == "[DONE]"
    chunks = events[:-1]
    text = "".join(chunk["choices"][0]["text"] for chunk in chunks if chunk["choices"])
    assert text == whole["choices"][0]["text"]
    assert chunks[-1]["usage"] == {**whole["usage"], **cached(chunks[-1])}
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"
    assert ": Server-Timing: first-token;dur=" in answer.text


def cached(chunk: dict[str, Any]) -> dict[str, Any]:
    """The second of two equal prompts is partly known to the hops."""
    return {"prompt_tokens_details": chunk["usage"]["prompt_tokens_details"]}


async def test_several_answers_differ_and_come_again_with_the_same_seed(
    tiny: Path, cache: Path
) -> None:
    ask: dict[str, Any] = {"prompt": [PROMPT, PROMPT[:4]], "n": 2, "max_tokens": 6, "seed": 7}
    async with gateway_on(tiny, cache) as asked:
        first = (await asked.post("/v1/completions", **ask)).json()
        again = (await asked.post("/v1/completions", **ask)).json()
        streamed = await asked.post("/v1/completions", **ask, stream=True)
    texts = [choice["text"] for choice in first["choices"]]
    assert [choice["index"] for choice in first["choices"]] == [0, 1, 2, 3]
    assert texts == [choice["text"] for choice in again["choices"]]
    assert texts[0] != texts[1]
    assert first["usage"]["prompt_tokens"] == len(PROMPT) + 4
    pieces = ["", "", "", ""]
    for chunk in events_of(streamed.text)[:-1]:
        pieces[chunk["choices"][0]["index"]] += chunk["choices"][0]["text"]
    assert pieces == texts


async def test_a_chat_goes_through_the_models_template(builtin: Path, cache: Path) -> None:
    chat = [{"role": "user", "content": "Hi."}]
    async with gateway_on(builtin, cache, "0-26") as asked:
        answer = await asked.post(
            "/v1/chat/completions", messages=chat, max_completion_tokens=5, temperature=0
        )
        stream = await asked.post(
            "/v1/chat/completions", messages=chat, max_tokens=5, temperature=0, stream=True
        )
    made = answer.json()
    message = made["choices"][0]["message"]
    assert (made["object"], message["role"]) == ("chat.completion", "assistant")
    chunks = events_of(stream.text)[:-1]
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    pieces = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
    assert "".join(pieces) == message["content"]
    assert chunks[-1]["choices"][0]["finish_reason"] == made["choices"][0]["finish_reason"]


async def test_a_stop_string_ends_an_answer_and_is_not_part_of_it(tiny: Path, cache: Path) -> None:
    ask: dict[str, Any] = {"prompt": PROMPT, "max_tokens": 12, "temperature": 0}
    async with gateway_on(tiny, cache) as asked:
        text = (await asked.post("/v1/completions", **ask)).json()["choices"][0]["text"]
        stop = text[5:8]
        cut = await asked.post("/v1/completions", **ask, stop=["never there", stop])
    choice = cut.json()["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert choice["text"] == text[: text.index(stop)]


WRONG: list[tuple[str, Any]] = [
    ("temperature", "hot"),
    ("temperature", -1),
    ("max_tokens", 0),
    ("max_tokens", True),
    ("top_p", 0),
    ("n", 17),
    ("stop", [""]),
    ("prompt", []),
    ("prompt", [1, "two"]),
    ("logit_bias", {"cat": 1}),
    ("stream_options", {"include_usage": 1}),
    ("colour", "blue"),
]


async def test_what_is_wrong_with_a_request_is_named(tiny: Path, cache: Path) -> None:
    async with gateway_on(tiny, cache) as asked:
        for field, value in WRONG:
            answer = await asked.post("/v1/completions", **{"prompt": "Once", field: value})
            error = answer.json()["error"]
            assert answer.status_code == 400, field
            assert error["type"] == "invalid_request_error"
            assert error["param"].partition(".")[0] == field
            assert field in error["message"]


async def test_a_prompt_that_is_too_long_is_the_callers_error(tiny: Path, cache: Path) -> None:
    async with gateway_on(tiny, cache) as asked:
        answer = await asked.post("/v1/completions", prompt=PROMPT * 40, stream=True)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"


async def test_layers_without_a_peer_are_503_and_named(tiny: Path, cache: Path) -> None:
    async with gateway_on(tiny, cache, "0-3", "4-8") as asked:
        asked.swarm.kill(asked.swarm.nodes[1])
        for stream in (False, True):
            answer = await asked.post("/v1/completions", prompt=PROMPT, stream=stream)
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) > 0
            assert answer.json()["error"]["missing_layers"] == ["4-8"]
