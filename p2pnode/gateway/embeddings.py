"""``/v1/embeddings``: the mean of a text's last hidden states, after the model's final norm."""

from __future__ import annotations

import base64
import struct
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from p2pnode.client.client import Client
from p2pnode.gateway.ask import as_list, encoded
from p2pnode.gateway.body import NOBODY_READS, BoundedRoute
from p2pnode.gateway.gateway import gateway_of
from p2pnode.gateway.models import check_model
from p2pnode.gateway.requests import EmbeddingsBody
from p2pnode.gateway.sse import ClientGone, unless_gone

router = APIRouter(route_class=BoundedRoute)


@router.post("/v1/embeddings")
async def embed(request: Request, body: EmbeddingsBody) -> Response:
    """One vector per input, in their order."""
    client = gateway_of(request).client
    try:
        return JSONResponse(await unless_gone(request.receive, embedded(client, body)))
    except ClientGone:
        return Response(status_code=NOBODY_READS)


async def embedded(client: Client, body: EmbeddingsBody) -> dict[str, Any]:
    """The answer; raises ApiError, P2PNodeError."""
    check_model(client.model.spec, body.model)
    prompts = await encoded(client.model, as_list(body.input))
    made = await client.embed(prompts)
    write = _base64 if body.encoding_format == "base64" else list
    num_tokens = sum(each.num_tokens for each in made)
    return {
        "object": "list",
        "model": body.model,
        "data": [
            {"object": "embedding", "index": index, "embedding": write(each.vector)}
            for index, each in enumerate(made)
        ],
        "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens},
    }


def _base64(vector: tuple[float, ...]) -> Any:
    """Little-endian float32, as OpenAI's clients read it."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
