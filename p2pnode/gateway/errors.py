"""Errors of the gateway, in OpenAI's shape: ``{"error": {message, type, param, code, ...}}``."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import Request

from p2pnode.errors import (
    BadConstraint,
    BadRequest,
    JoinFailed,
    NoChain,
    P2PNodeError,
    PromptTooLong,
)
from p2pnode.log import escape

log = logging.getLogger(__name__)

RETRY_NO_CHAIN_S = 5
MESSAGE_LIMIT = 1000

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
}


class ApiError(Exception):
    """An answer that is an error; ``more`` are fields beside OpenAI's own."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
        **more: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s
        self.body: dict[str, Any] = {
            "message": message,
            "type": _TYPES.get(status, "server_error"),
            "param": param,
            "code": code,
            **more,
        }

    def response(self) -> JSONResponse:
        """The whole answer."""
        headers = {}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(max(1, round(self.retry_after_s)))
        if self.status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse({"error": self.body}, self.status, headers)


def of_ours(error: P2PNodeError) -> ApiError:
    """What the caller is told of an error of the swarm."""
    message = escape(str(error), MESSAGE_LIMIT)
    if isinstance(error, PromptTooLong):
        return ApiError(400, "context_length_exceeded", message)
    if isinstance(error, BadConstraint):
        return ApiError(400, "invalid_json_schema", message, param="response_format")
    if isinstance(error, BadRequest):
        return ApiError(400, "bad_request", message)
    if isinstance(error, NoChain):
        missing = [str(layers) for layers in error.missing]
        again_s = RETRY_NO_CHAIN_S
        return ApiError(503, "no_chain", message, retry_after_s=again_s, missing_layers=missing)
    if isinstance(error, JoinFailed):
        return ApiError(503, "not_joined", message, retry_after_s=RETRY_NO_CHAIN_S)
    # Of this machine: names of files and the like are not for strangers.
    log.error("request failed: kind=%s error=%s", error.kind, message)
    return ApiError(500, error.kind, "a fault of the gateway's machine; its log has more")


def answer_errors(app: FastAPI) -> None:
    """Give every error of the app OpenAI's shape."""
    app.add_exception_handler(ApiError, _on_api_error)
    app.add_exception_handler(P2PNodeError, _on_error_of_ours)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_bug)


async def _on_api_error(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, ApiError):
        raise error
    return error.response()


async def _on_error_of_ours(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, P2PNodeError):
        raise error
    return of_ours(error).response()


async def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    return invalid(error.errors()).response()


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    """What the framework refuses: an unknown path, a wrong method."""
    if not isinstance(error, HTTPException):
        raise error
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    answer = ApiError(error.status_code, code, escape(str(error.detail), MESSAGE_LIMIT)).response()
    answer.headers.update(error.headers or {})
    return answer


async def _on_bug(request: Request, error: Exception) -> JSONResponse:
    """Ours to mend; the server logs it."""
    return ApiError(500, "internal_error", "a bug of the gateway; its log has more").response()


def invalid(problems: Sequence[Mapping[str, Any]]) -> ApiError:
    """A body that is not of its form: names the first field that is wrong."""
    problem = problems[0] if problems else {"loc": (), "msg": "not of its form"}
    names = [str(part) for part in problem["loc"] if part != "body"]
    field = escape(".".join(names), 100)
    said = escape(str(problem["msg"]).removeprefix("Value error, "), MESSAGE_LIMIT)
    message = f"{field}: {said}" if field else f"the body: {said}"
    return ApiError(400, "invalid_value", message, param=field or None)
