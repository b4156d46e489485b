"""The gateway without HTTP: a body in, an answer out; for jobs that have time to wait."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

from pydantic import ValidationError

from p2pnode.errors import P2PNodeError
from p2pnode.gateway.answering import Answering
from p2pnode.gateway.ask import Ask, read_chat, read_completion
from p2pnode.gateway.embeddings import embedded
from p2pnode.gateway.errors import ApiError, invalid, of_ours
from p2pnode.gateway.gateway import Gateway
from p2pnode.gateway.requests import ChatBody, CompletionBody, EmbeddingsBody

log = logging.getLogger(__name__)

FIRST_WAIT_S = 1.0
MAX_WAIT_S = 30.0
CALLER = "batch"

Work = Callable[[], Awaitable[dict[str, Any]]]


async def answered(
    gateway: Gateway, url: str, body: Mapping[str, Any]
) -> tuple[int, dict[str, Any]]:
    """Status and body of the answer; never one of a swarm that cannot answer now: that is waited
    for, and an answer that was cut goes on where it was."""
    wait_s, work = FIRST_WAIT_S, None
    while True:
        try:
            work = work or await _work(gateway, url, body)
            return HTTPStatus.OK, await work()
        except (ApiError, P2PNodeError) as error:
            told = error if isinstance(error, ApiError) else of_ours(error)
            if told.status != HTTPStatus.SERVICE_UNAVAILABLE:
                return told.status, {"error": told.body}
            log.warning("no answer yet, waiting: error=%s wait_s=%g", told, wait_s)
        except ValidationError as error:
            return HTTPStatus.BAD_REQUEST, {"error": invalid(error.errors()).body}
        await asyncio.sleep(wait_s)
        wait_s = min(MAX_WAIT_S, 2 * wait_s)


async def _work(gateway: Gateway, url: str, body: Mapping[str, Any]) -> Work:
    """What to do for one request; raises ApiError, P2PNodeError, ValidationError."""
    model = gateway.client.model
    match url:
        case "/v1/chat/completions":
            return _answering(gateway, await read_chat(model, ChatBody.model_validate(body)))
        case "/v1/completions":
            read = await read_completion(model, CompletionBody.model_validate(body))
            return _answering(gateway, read)
        case "/v1/embeddings":
            wanted = EmbeddingsBody.model_validate(body)
            return lambda: embedded(gateway.client, wanted)
    raise ApiError(404, "not_found", "no such url", param="url")


def _answering(gateway: Gateway, ask: Ask) -> Work:
    return Answering(gateway, ask, CALLER).whole
