"""What tests of the gateway share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.models import BUILTIN


@pytest.fixture(scope="session")
def builtin() -> Path:
    """The model that comes with us; it has a chat template."""
    return BUILTIN
