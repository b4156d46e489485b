"""Runs coroutine tests: on uvloop in asyncio's debug mode, or on virtual time when marked."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Coroutine
from typing import Any

import pytest
import uvloop

from p2pnode.lab.virtual_time import run_virtual

REAL_TEST_TIMEOUT_S = 120.0


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run ``async def test_...`` to its end; everything it started must be gone by then."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    test = pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names})
    if pyfuncitem.get_closest_marker("virtual_time"):
        run_virtual(test)
    else:
        with asyncio.Runner(debug=True, loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_bounded(test))
    return True


async def _bounded(test: Coroutine[Any, Any, None]) -> None:
    async with asyncio.timeout(REAL_TEST_TIMEOUT_S):
        await test
