"""``/v1/models``: the one model that this gateway's client talks to."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from p2pnode.gateway.errors import ApiError
from p2pnode.gateway.gateway import gateway_of
from p2pnode.log import escape
from p2pnode.types import ModelSpec

router = APIRouter()


@router.get("/v1/models")
async def list_models(request: Request) -> dict[str, Any]:
    """All models that can be asked for: one."""
    return {"object": "list", "data": [_described(gateway_of(request).client.model.spec)]}


@router.get("/v1/models/{name:path}")
async def show_model(request: Request, name: str) -> dict[str, Any]:
    """One model."""
    spec = gateway_of(request).client.model.spec
    check_model(spec, name)
    return _described(spec)


def check_model(spec: ModelSpec, name: str) -> None:
    """Raises ApiError (404) when that is not the model which is served."""
    if name != spec.name:
        what = f"no model {escape(name, 80)!r} here; this gateway serves {escape(spec.name)!r}"
        raise ApiError(404, "model_not_found", what, param="model")


def _described(spec: ModelSpec) -> dict[str, Any]:
    return {
        "id": spec.name,
        "object": "model",
        "created": 0,
        "owned_by": "p2pnode",
        "fingerprint": spec.fingerprint,
        "num_layers": spec.num_layers,
        "max_model_len": spec.max_positions,
    }
