"""``/v1/chat/completions``, ``/v1/completions``, ``/v1/resume``: a request from its body on.

`ask` reads what it wants, `answering` asks the client and writes the answer.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from p2pnode.gateway.answering import answer
from p2pnode.gateway.ask import read_chat, read_completion
from p2pnode.gateway.body import BoundedRoute
from p2pnode.gateway.gateway import gateway_of
from p2pnode.gateway.limits import caller_of
from p2pnode.gateway.requests import ChatBody, CompletionBody, ResumeBody

router = APIRouter(route_class=BoundedRoute)


@router.post("/v1/chat/completions")
async def chat(request: Request, body: ChatBody) -> Response:
    """The next message of a conversation."""
    gateway = gateway_of(request)
    ask = await read_chat(gateway.client.model, body)
    return await answer(request, gateway, ask, as_stream=bool(body.stream))


@router.post("/v1/completions")
async def complete(request: Request, body: CompletionBody) -> Response:
    """Text that goes on from a prompt."""
    gateway = gateway_of(request)
    ask = await read_completion(gateway.client.model, body)
    return await answer(request, gateway, ask, as_stream=bool(body.stream))


@router.post("/v1/resume")
async def resume(request: Request, body: ResumeBody) -> Response:
    """The rest of an answer that was cut; without ``stream`` the whole of it."""
    gateway = gateway_of(request)
    gateway.check_joined()  # else the answer would be taken in vain
    answering = gateway.resumable.take(body.id, caller_of(request))
    return await answering.respond(request, as_stream=body.stream is not False)
