"""What strangers write cannot move a terminal's cursor, hide, or forge a line of the log."""

from __future__ import annotations

import io
import logging
import unicodedata
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from p2pnode import log
from p2pnode.log import escape


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("qwen3-8b, naïve 模型 🙂", "qwen3-8b, naïve 模型 🙂"),
        ("a\nb\r\tc", r"a\x0ab\x0d\x09c"),
        ("\x1b[31mred\x07\x7f", r"\x1b[31mred\x07\x7f"),
        ("\x9b31m", r"\x9b31m"),
        ("abc\u202egnp.exe", r"abc\u202egnp.exe"),
        ("a\u200bb\ufeffc\u2028d\u00a0e", r"a\u200bb\ufeffc\u2028d\xa0e"),
        ("back\\slash", r"back\\slash"),
        ("\ud800", r"\ud800"),
        ("z\u0334\u0353", r"z\u0334\u0353"),
        ("\U000e0041\ue000", r"\U000e0041\ue000"),
    ],
)
def test_only_visible_characters_are_shown_as_they_are(text: str, shown: str) -> None:
    assert escape(text) == shown


@given(text=st.text(st.characters(exclude_categories=()), max_size=300), limit=st.integers(1, 80))
@example(text="\x1b" * 30, limit=10)
@example(text="x" * 11, limit=10)
def test_escaped_text_is_one_printable_line_within_the_limit(text: str, limit: int) -> None:
    shown = escape(text, limit)
    assert len(shown) <= limit
    assert shown.isprintable() and not any(map(unicodedata.combining, shown))
    shown.encode()
    assert shown.endswith("…") or "…" in text or len(text) <= limit


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where the log goes; what was set up before is restored."""
    root, ours = logging.getLogger(), logging.getLogger("p2pnode")
    before = (root.handlers[:], root.level, ours.level)
    yield io.StringIO()
    root.handlers[:], level, our_level = before
    root.setLevel(level)
    ours.setLevel(our_level)


def test_an_event_is_one_line(stream: io.StringIO) -> None:
    log.setup("info", stream)
    logging.getLogger("p2pnode.node.node").info("joined: peer=%s model=%s", "abcd", "a\nb\x1b[2J")
    line, end = stream.getvalue().split("\n")
    assert end == ""
    clock, message = line[:8], line[9:]
    assert clock.count(":") == 2
    assert message == r"info node.node: joined: peer=abcd model=a\x0ab\x1b[2J"


def test_what_was_escaped_is_not_escaped_twice(stream: io.StringIO) -> None:
    log.setup("info", stream)
    logging.getLogger("p2pnode.x").info("name=%s", escape("a\nb"))
    assert stream.getvalue().endswith("name=a\\x0ab\n")


def test_the_level_is_ours_and_libraries_speak_only_of_trouble(stream: io.StringIO) -> None:
    log.setup("debug", stream)
    logging.getLogger("p2pnode.x").debug("ours")
    logging.getLogger("hivemind.dht").info("theirs")
    logging.getLogger("some.library").info("theirs")
    logging.getLogger("some.library").warning("trouble")
    assert [line.split()[-1] for line in stream.getvalue().splitlines()] == ["ours", "trouble"]
    log.setup("warning", stream)
    logging.getLogger("p2pnode.x").info("not shown")
    logging.getLogger("p2pnode.x").warning("shown once")
    assert stream.getvalue().count("shown") == 1


def test_a_traceback_follows_on_lines_of_its_own(stream: io.StringIO) -> None:
    log.setup("debug", stream)
    try:
        int("deep")
    except ValueError:
        logging.getLogger("p2pnode.x").exception("bug")
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith("error x: bug") and lines[-1].startswith("ValueError: ")


def test_a_very_long_event_is_cut(stream: io.StringIO) -> None:
    log.setup("info", stream)
    logging.getLogger("p2pnode.x").info("%s", "x" * 100_000)
    assert len(stream.getvalue()) < 5_000


def test_a_level_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="not one of debug, info"):
        log.setup("loud")
