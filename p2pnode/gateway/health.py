"""``/ping``: this process answers. ``/health``: an answer could be given now, or why not.
``/metrics``: how much of what there was.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.responses import Response

from p2pnode.errors import JoinFailed
from p2pnode.gateway.errors import ApiError
from p2pnode.gateway.gateway import Gateway, gateway_of
from p2pnode.log import escape
from p2pnode.types import LayerRange, Liveness, ModelSpec, SwarmView, uncovered

router = APIRouter()


@router.get("/ping")
async def ping() -> dict[str, str]:
    """Whether this process is alive; says nothing of the swarm."""
    return {"status": "ok"}


@router.get("/health")
async def health(request: Request) -> Response:
    """200 when every layer of the model has a live peer, else 503 and why."""
    told = await readiness(gateway_of(request))
    status = HTTPStatus.OK if told["ready"] else HTTPStatus.SERVICE_UNAVAILABLE
    return JSONResponse(told, status)


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """In Prometheus' text format."""
    gateway, observed, num_missing = gateway_of(request), None, 0
    try:
        client = gateway.client
        observed = await client.seen.observe()
        num_missing = sum(map(len, missing_layers(observed.view, client.model.spec)))
    except (ApiError, JoinFailed):
        observed = None
    text = gateway.metrics.render(observed, num_missing)
    return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)


async def readiness(gateway: Gateway) -> dict[str, Any]:
    """``ready``, ``why`` (empty when ready), ``model`` and ``missing_layers``."""
    told: dict[str, Any] = {"ready": False, "why": "", "model": None, "missing_layers": []}
    try:
        client = gateway.client
        spec = client.model.spec
        missing = missing_layers((await client.seen.observe()).view, spec)
    except (ApiError, JoinFailed) as error:
        return {**told, "why": escape(str(error))}
    shown = [str(layers) for layers in missing]
    why = f"no live peer serves layers {', '.join(shown)} of {escape(spec.name)}" if shown else ""
    return {"ready": not shown, "why": why, "model": spec.name, "missing_layers": shown}


def missing_layers(view: SwarmView, spec: ModelSpec) -> tuple[LayerRange, ...]:
    """The layers that no live peer serves; of the numerics class that lacks least."""
    ranges: dict[str, list[LayerRange]] = {"": []}
    for each in view.of_model(spec.fingerprint).announcements:
        known = view.health.get(each.peer)
        is_away = known and (known.liveness is not Liveness.ALIVE or known.health.is_draining)
        if not is_away:
            ranges.setdefault(each.numerics, []).append(each.layers)
    gaps = [uncovered(layers, spec.num_layers) for layers in ranges.values()]
    return min(gaps, key=lambda missing: sum(map(len, missing)))
