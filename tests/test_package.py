"""What `import p2pnode` offers."""

from __future__ import annotations

import pytest

import p2pnode


def test_every_name_that_is_offered_exists() -> None:
    assert [name for name in p2pnode.__all__ if getattr(p2pnode, name, None) is None] == []


def test_other_names_do_not() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        p2pnode.no_such_name  # noqa: B018
