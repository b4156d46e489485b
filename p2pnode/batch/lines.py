"""Requests and answers as lines of JSON, in OpenAI's batch format."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2pnode.errors import BadRequest
from p2pnode.log import escape

MAX_LINE_BYTES = 1 << 20
MAX_ID_CHARS = 512


@dataclass(frozen=True, slots=True)
class Job:
    """One line of the input."""

    custom_id: str
    url: str
    body: dict[str, Any]


def read_jobs(file: Path) -> Iterator[Job]:
    """Line by line, so that the file may be large; raises BadRequest, which names the line."""
    try:
        with file.open("rb") as lines:
            number = 0
            while line := lines.readline(MAX_LINE_BYTES + 1):
                number += 1
                if line.strip():
                    yield _job(line, f"{escape(str(file))}, line {number}")
    except OSError as error:
        raise BadRequest(f"cannot read {escape(str(file))}: {error.strerror}") from None


def _job(line: bytes, where: str) -> Job:
    if len(line) > MAX_LINE_BYTES:
        raise BadRequest(f"{where}: longer than {MAX_LINE_BYTES} bytes")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise BadRequest(f"{where}: not JSON") from None
    if not isinstance(value, dict):
        raise BadRequest(f"{where}: not a JSON object")
    custom_id, url, body = value.get("custom_id"), value.get("url"), value.get("body")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= MAX_ID_CHARS:
        raise BadRequest(f"{where}: custom_id must be a text of 1 to {MAX_ID_CHARS} characters")
    if value.get("method") != "POST":
        raise BadRequest(f"{where}: method must be POST")
    if not isinstance(url, str) or not isinstance(body, dict):
        raise BadRequest(f"{where}: url must be a text and body an object")
    return Job(custom_id, url, body)


def answer_line(job: Job, status: int, body: dict[str, Any]) -> bytes:
    """One line of the output."""
    name = f"batch_req_{secrets.token_hex(12)}"
    response = {"status_code": int(status), "request_id": body.get("id", name), "body": body}
    line = {"id": name, "custom_id": job.custom_id, "response": response, "error": None}
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def answered_id(line: bytes) -> str | None:
    """The custom_id of a line of the output; None when it is not one of ours."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    custom_id = value.get("custom_id") if isinstance(value, dict) else None
    return custom_id if isinstance(custom_id, str) and "response" in value else None
