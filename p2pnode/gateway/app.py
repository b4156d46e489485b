"""The FastAPI app of one gateway: which path is answered where."""

from __future__ import annotations

from fastapi import FastAPI

from p2pnode.gateway import models
from p2pnode.gateway.errors import answer_errors
from p2pnode.gateway.gateway import Gateway
from p2pnode.version import VERSION


def make_app(gateway: Gateway) -> FastAPI:
    """All routes, for the client of that gateway. Nothing is shared between two apps."""
    app = FastAPI(title="p2pnode", version=VERSION, docs_url=None, redoc_url=None)
    app.state.gateway = gateway
    answer_errors(app)
    app.include_router(models.router)
    return app
