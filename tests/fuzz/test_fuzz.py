"""Every decoder takes some thousand odd inputs; a million each: ``python -m tests.fuzz all``."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.fuzz.mutate import mutated
from tests.fuzz.running import Finding, Target, fuzz
from tests.fuzz.targets import QUIET, TARGETS

RUNS = 2000
SLOW = {"config": 100, "template": 200, "envelopes": 500, "records": 500}
"""Those whose inputs cost a millisecond take fewer here."""


@pytest.fixture(autouse=True)
def _loud_again() -> Iterator[None]:
    """What was silenced for a million odd inputs is heard by other tests."""
    loggers = [logging.getLogger(name) for name in QUIET]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.mark.parametrize("name", TARGETS)
def test_a_decoder_accepts_or_refuses_and_does_nothing_else(name: str) -> None:
    runs = SLOW.get(name, RUNS)
    report = fuzz(TARGETS[name](), runs, seed=1)
    assert report.accepted > 0
    assert report.accepted + report.refused == runs


def test_the_same_seed_gives_the_same_inputs() -> None:
    heard: list[list[bytes]] = [[], []]
    for inputs in heard:
        fuzz(Target([b"sample"], inputs.append), 50, seed=7)
    assert heard[0] == heard[1]
    assert len(set(heard[0])) > 20


def test_another_error_than_the_stated_ones_is_found_with_its_input() -> None:
    def decode(data: bytes) -> None:
        if len(data) > 6:
            raise KeyError("bug")

    with pytest.raises(Finding, match=r"input \d+ of seed 0: KeyError: 'bug': b"):
        fuzz(Target([b"sample"], decode, (ValueError,), mutated), 200, seed=0)


def test_a_sample_that_is_refused_is_found() -> None:
    def decode(data: bytes) -> None:
        raise ValueError("no")

    with pytest.raises(Finding, match="sample 0 is refused"):
        fuzz(Target([b"sample"], decode, (ValueError,)), 1, seed=0)
