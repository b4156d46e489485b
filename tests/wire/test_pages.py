"""Names of pages: equal only where all tokens before are, and nothing without the key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.wire.messages import Close
from p2pnode.wire.pages import (
    MAX_PAGES,
    NAME_BYTES,
    PAGE_TOKENS,
    names_of,
    tokens_named,
    tokens_shared,
)

KEY = b"k" * 32
TOKENS = list(range(5 * PAGE_TOKENS))


def test_only_whole_pages_have_names() -> None:
    assert names_of(KEY, TOKENS[: PAGE_TOKENS - 1]) == b""
    assert tokens_named(names_of(KEY, TOKENS[: 2 * PAGE_TOKENS + 9])) == 2 * PAGE_TOKENS


def test_without_a_key_nothing_is_named() -> None:
    assert names_of(b"", TOKENS) == b""


def test_very_long_prompts_are_named_in_part() -> None:
    assert len(names_of(KEY, [1] * PAGE_TOKENS * (MAX_PAGES + 3))) == MAX_PAGES * NAME_BYTES


@given(
    first=st.integers(0, len(TOKENS) - 1),
    ours=st.integers(0, len(TOKENS)),
    theirs=st.integers(0, len(TOKENS)),
)
def test_what_is_shared_ends_with_the_last_page_before_the_first_difference(
    first: int, ours: int, theirs: int
) -> None:
    others = [*TOKENS[:first], 999, *TOKENS[first + 1 :]]
    shared = tokens_shared(names_of(KEY, TOKENS[:ours]), names_of(KEY, others[:theirs]))
    assert shared == min(first, ours, theirs) // PAGE_TOKENS * PAGE_TOKENS


def test_another_key_gives_other_names() -> None:
    assert tokens_shared(names_of(KEY, TOKENS), names_of(b"K" * 32, TOKENS)) == 0


@pytest.mark.parametrize("num_bytes", [1, NAME_BYTES - 1, NAME_BYTES * (MAX_PAGES + 1)])
def test_broken_or_endless_names_are_refused(num_bytes: int) -> None:
    with pytest.raises(ValueError, match="page names"):
        Close(session=b"s" * 16, layer=0, pages=b"n" * num_bytes)
