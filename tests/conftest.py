"""Runs coroutine tests: on uvloop in asyncio's debug mode, or on virtual time when marked."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import uvloop

from p2pnode.lab.virtual_time import run_virtual
from tests.support.forks import close_forks
from tests.support.models import make_tiny_llama

REAL_TEST_TIMEOUT_S = 120.0

# Tiny models: threads that wait for each other would take most of the suite's time.
torch.set_num_threads(1)


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


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """What a test sets up for p2pnode's logger ends with it."""
    logger = logging.getLogger("p2pnode")
    handlers, level, propagates = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.propagate = handlers, propagates
    logger.setLevel(level)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of 9 layers with random weights."""
    return make_tiny_llama(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where fingerprints and the like are kept."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session", autouse=True)
def _forks() -> Iterator[None]:
    """What starts processes for tests ends with them."""
    yield
    close_forks()
