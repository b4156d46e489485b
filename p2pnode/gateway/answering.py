"""One request from the top: ask the client, write what it answers, and what happens when it fails.

Whole or as a stream; a stream that fails ends with an error event, never with a finish reason.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from http import HTTPStatus

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from p2pnode.client.events import Done, Event
from p2pnode.errors import BadRequest, P2PNodeError
from p2pnode.gateway.answers import Value, Writer
from p2pnode.gateway.ask import Ask
from p2pnode.gateway.body import NOBODY_READS
from p2pnode.gateway.choices import Choice, events_of
from p2pnode.gateway.errors import ApiError, of_ours
from p2pnode.gateway.gateway import Gateway
from p2pnode.gateway.limits import caller_of
from p2pnode.gateway.sse import DONE, ClientGone, EventStream, comment, data, unless_gone
from p2pnode.gateway.timings import chain_headers, server_timing


class Answering:
    """The answers to one request; resumed, it goes on where it was cut."""

    def __init__(self, gateway: Gateway, ask: Ask, caller: str) -> None:
        self._gateway = gateway
        self._ask = ask
        self._caller = caller
        self._choices = [Choice(index) for index in range(len(ask.samplings))]
        model = gateway.client.model
        self._name = f"{'chatcmpl' if ask.is_chat else 'cmpl'}-{secrets.token_hex(12)}"
        self._writer = Writer(ask, self._name, model.spec.name, model.codec)

    async def respond(self, request: Request, *, as_stream: bool) -> Response:
        """The response: whole, or one that streams as it is sent."""
        settings = self._gateway.settings
        if as_stream:
            return EventStream(
                self._stream(),
                headers=self._headers,
                ping_interval_s=settings.ping_interval_s,
                send_timeout_s=settings.send_timeout_s,
            )
        try:
            whole = await unless_gone(request.receive, self.whole())
        except ClientGone:
            return Response(status_code=NOBODY_READS)
        headers = {**self._headers(), "Server-Timing": server_timing(self._answers())}
        return JSONResponse(whole, headers=headers)

    async def whole(self) -> Value:
        """All of it; raises ApiError. Called again after that, it goes on where it was cut."""
        async with aclosing(self._events()) as events:
            async for _ in events:
                pass
        return self._writer.whole(self._choices)

    async def _stream(self) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._events()) as events:
            async for choice, event, text in events:
                for chunk in self._writer.chunks(choice, event, text):
                    yield data(chunk)
        if self._ask.wants_usage:
            yield data(self._writer.usage_chunk(self._choices))
        yield comment(f"Server-Timing: {server_timing(self._answers())}")
        yield DONE

    async def _events(self) -> AsyncGenerator[tuple[Choice, Event, str], None]:
        """All events, and the text that each adds; raises ApiError when the answer is cut."""
        metrics, client = self._gateway.metrics, self._gateway.client
        began_at, ended_by = time.time(), "ClientGone"
        try:
            with metrics.answering():
                async with aclosing(events_of(client, self._ask, self._choices)) as events:
                    async for choice, event in events:
                        text = choice.take(event)
                        metrics.note(event)
                        yield choice, event, text
            ended_by = ""
        except P2PNodeError as error:
            ended_by = error.kind
            metrics.failed(error)
            raise self._failed(error) from error
        finally:
            self._gateway.tracer.ended(self._name, began_at, self._answers(), ended_by)

    def _failed(self, error: P2PNodeError) -> ApiError:
        """What the caller is told; an answer that has begun may be resumed."""
        told = of_ours(error)
        has_begun = any(choice.tokens for choice in self._choices)
        if isinstance(error, BadRequest) or not has_begun:
            return told
        told.status = HTTPStatus.SERVICE_UNAVAILABLE
        resume_id = self._gateway.resumable.keep(self, self._caller)
        what = f"the answer was cut: {told.body['message']}"
        told.body |= {"message": what, "code": "answer_cut", "resume_id": resume_id}
        told.body["resume_for_s"] = self._gateway.settings.resume_for_s
        return told

    def _headers(self) -> dict[str, str]:
        chains = chain_headers([choice.chain for choice in self._choices])
        return {"X-Request-Id": self._name, **chains}

    def _answers(self) -> list[Done]:
        return [choice.done for choice in self._choices if choice.done]


async def answer(request: Request, gateway: Gateway, ask: Ask, *, as_stream: bool) -> Response:
    """Answer a new request."""
    answering = Answering(gateway, ask, caller_of(request))
    return await answering.respond(request, as_stream=as_stream)
