"""Every endpoint, asked for whatever its own description allows and forbids: no server error."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

from p2pnode.bench.http_fuzz import fuzz
from p2pnode.gateway.server import listening
from tests.gateway.swarms import gateway_on

EXAMPLES = 5
"""Per endpoint; `p2pnode bench gateway` asks for more."""


@pytest.mark.parametrize("is_valid", [True, False])
async def test_no_request_is_a_server_error(is_valid: bool, tiny: Path, cache: Path) -> None:
    async with (
        gateway_on(tiny, cache, requests_per_minute=1_000_000) as asked,
        listening(asked.app, "127.0.0.1", 0) as url,
    ):
        ask = partial(fuzz, url, asked.model, is_valid=is_valid, examples=EXAMPLES)
        statuses = await asyncio.get_running_loop().run_in_executor(None, ask)
    assert max(statuses) < 500
    assert (200 if is_valid else 400) in statuses
