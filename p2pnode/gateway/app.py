"""The FastAPI app of one gateway: which path is answered where."""

from __future__ import annotations

from fastapi import FastAPI

from p2pnode.gateway import completions, embeddings, health, models, page
from p2pnode.gateway.errors import answer_errors
from p2pnode.gateway.feed import Feed
from p2pnode.gateway.gateway import Gateway
from p2pnode.gateway.limits import Door
from p2pnode.version import VERSION


def make_app(gateway: Gateway, feed: Feed | None = None) -> FastAPI:
    """All routes, for the client of that gateway. Nothing is shared between two apps.

    feed: what the status page follows, and the caller runs; without it there is no page
    """
    app = FastAPI(title="p2pnode", version=VERSION, docs_url=None, redoc_url=None)
    app.state.gateway = gateway
    answer_errors(app)
    for part in (models, completions, embeddings, health):
        app.include_router(part.router)
    if feed is not None:
        app.include_router(page.make_router(feed))
    app.add_middleware(
        Door,
        settings=gateway.settings,
        limits=gateway.limits,
        seen=gateway.metrics.responded,
    )
    return app
