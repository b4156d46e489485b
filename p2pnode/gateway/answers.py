"""Answers in OpenAI's shape: whole ones, and the chunks of streams."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from p2pnode.client.events import Done, Event, Token
from p2pnode.gateway.ask import Ask
from p2pnode.gateway.choices import Choice
from p2pnode.gateway.timings import described
from p2pnode.gateway.tools import Call, ToolReader
from p2pnode.model.text import TextCodec

Value = dict[str, Any]


class Writer:
    """Writes the answers of one request; chats and completions differ in the inner parts."""

    def __init__(self, ask: Ask, name: str, model: str, codec: TextCodec) -> None:
        """name: the answer's id."""
        self._ask = ask
        self._codec = codec
        self._readers = {
            index: ToolReader(ask.tools) for index in range(len(ask.samplings)) if ask.tools
        }
        self._offsets: dict[int, int] = {}
        self._greeted: set[int] = set()
        kind = "chat.completion" if ask.is_chat else "text_completion"
        self._whole = {"id": name, "object": kind, "created": int(time.time()), "model": model}
        self._chunk = {**self._whole, "object": f"{kind}.chunk" if ask.is_chat else kind}

    # --- streams

    def chunks(self, choice: Choice, event: Event, text: str) -> Iterator[Value]:
        """What an event adds to a stream; ``text`` is what it adds to the text."""
        if isinstance(event, Token | Done) and choice.index not in self._greeted:
            self._greeted.add(choice.index)
            if self._ask.is_chat:
                yield self._delta(choice, {"role": "assistant", "content": ""})
        if isinstance(event, Token):
            yield from self._on_token(choice, event, text)
        elif isinstance(event, Done):
            yield from self._on_done(choice, event, text)

    def _on_token(self, choice: Choice, token: Token, text: str) -> Iterator[Value]:
        reader = self._readers.get(choice.index)
        text = reader.push(text) if reader else text
        logprobs = self._logprobs(choice, [token]) if token.logprob is not None else None
        if text or logprobs:
            yield self._delta(choice, {"content": text}, logprobs)

    def _on_done(self, choice: Choice, done: Done, text: str) -> Iterator[Value]:
        reader, reason = self._readers.get(choice.index), done.finish_reason
        if reader is not None:
            text = reader.push(text)
            rest, calls = reader.finish()
            text += rest
            reason = "tool_calls" if calls else reason
        if text:
            yield self._delta(choice, {"content": text})
        if reader is not None and calls:
            yield self._delta(choice, {"tool_calls": _calls(calls, with_index=True)})
        last = self._delta(choice, {})
        last["choices"][0]["finish_reason"] = reason
        yield {**last, "p2pnode": described(done)}

    def usage_chunk(self, choices: Sequence[Choice]) -> Value:
        """The last chunk of a stream that was asked for its sums."""
        return {**self._chunk, "choices": [], "usage": self._usage(choices)}

    def _delta(self, choice: Choice, delta: Value, logprobs: Value | None = None) -> Value:
        index = choice.index
        inner = {"delta": delta} if self._ask.is_chat else {"text": delta.get("content", "")}
        part = {"index": index, **inner, "logprobs": logprobs, "finish_reason": None}
        usage = {"usage": None} if self._ask.wants_usage else {}
        return {**self._chunk, "choices": [part], **usage}

    # --- whole answers

    def whole(self, choices: Sequence[Choice]) -> Value:
        """The answer of a request that is no stream; all choices are complete."""
        parts = [self._part(choice, choice.done) for choice in choices if choice.done]
        measured = [described(choice.done) for choice in choices if choice.done]
        usage = self._usage(choices)
        return {**self._whole, "choices": parts, "usage": usage, "p2pnode": measured}

    def _part(self, choice: Choice, done: Done) -> Value:
        logprobs, reason = self._logprobs(choice, choice.tokens), done.finish_reason
        if not self._ask.is_chat:
            outer = {"index": choice.index, "text": done.text, "logprobs": logprobs}
            return {**outer, "finish_reason": reason}
        message: Value = {"role": "assistant", "content": done.text, "refusal": None}
        if self._ask.tools is not None:
            reader = ToolReader(self._ask.tools)
            text = reader.push(done.text)
            rest, calls = reader.finish()
            if calls:
                reason, message["tool_calls"] = "tool_calls", _calls(calls)
                message["content"] = text + rest or None
        outer = {"index": choice.index, "message": message, "logprobs": logprobs}
        return {**outer, "finish_reason": reason}

    def _usage(self, choices: Sequence[Choice]) -> Value:
        """Each prompt is counted once, however many answers it has."""
        answers = [choice.done for choice in choices if choice.done]
        per_prompt = max(1, len(self._ask.samplings) // len(self._ask.prompts))
        first = answers[::per_prompt]
        prompt = sum(done.prompt_tokens for done in first)
        completion = sum(len(done.token_ids) for done in answers)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": sum(done.cached_tokens for done in first)},
        }

    # --- logprobs

    def _logprobs(self, choice: Choice, tokens: Sequence[Token]) -> Value | None:
        if self._ask.samplings[choice.index].num_logprobs is None:
            return None
        if self._ask.is_chat:
            return {"content": [self._chat_logprob(token) for token in tokens], "refusal": None}
        texts = [self._codec.shown(token.token_id) for token in tokens]
        at = self._offsets.get(choice.index, 0)
        offsets = [at + sum(map(len, texts[:index])) for index in range(len(texts))]
        self._offsets[choice.index] = at + sum(map(len, texts))
        return {
            "tokens": texts,
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [
                {top.text: top.logprob for top in token.top_logprobs} for token in tokens
            ],
            "text_offset": offsets,
        }

    def _chat_logprob(self, token: Token) -> Value:
        text = self._codec.shown(token.token_id)
        tops = [_logprob(top.text, top.logprob) for top in token.top_logprobs]
        return {**_logprob(text, token.logprob), "top_logprobs": tops}


def _logprob(text: str, logprob: float | None) -> Value:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode("utf-8", "replace"))}


def _calls(calls: Sequence[Call], *, with_index: bool = False) -> list[Value]:
    return [
        {
            **({"index": index} if with_index else {}),
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for index, call in enumerate(calls)
    ]
