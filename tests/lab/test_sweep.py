"""Sweeps: every hop at every token, once, and half of them sampled."""

from __future__ import annotations

from collections import Counter
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from p2pnode.errors import BadRequest, NoChain
from p2pnode.lab.backends import choose_lab
from p2pnode.lab.record import open_record, read_record
from p2pnode.lab.result import Trial
from p2pnode.lab.scenario import FaultKind, Scenario, Where
from p2pnode.lab.sweep import Sweep, plan, run_sweep
from tests.lab.test_record import SETTINGS, trial


def scenarios(cache: Path, **settings: Any) -> list[Scenario]:
    return plan(Sweep(fault=FaultKind.KILL, **settings), cache)


class FakeBackend:
    """Says that all went well; fails at one scenario, as an interrupted command does."""

    def __init__(self, fails_at: str = "") -> None:
        self.ran: list[str] = []
        self._fails_at = fails_at

    async def __call__(self, scenario: Scenario) -> Trial:
        if scenario.name == self._fails_at:
            raise NoChain("interrupted")
        self.ran.append(scenario.name)
        return trial(scenario.name)


def test_a_full_sweep_breaks_every_hop_at_every_token_once(cache: Path) -> None:
    planned = scenarios(cache)
    assert len(planned) == 192
    assert len({each.name for each in planned}) == 192
    places = Counter((each.faults[0].hop, each.faults[0].at.token) for each in planned)
    assert places == Counter({(hop, token): 1 for hop in range(3) for token in range(64)})


@pytest.mark.parametrize(("trials", "tokens"), [(None, 64), (24, 64), (12, 64), (24, 9)])
def test_half_are_sampled_and_some_are_in_prefill_and_in_flight(
    trials: int | None, tokens: int, cache: Path
) -> None:
    planned = scenarios(cache, trials=trials, tokens=tokens)
    assert len(planned) == (trials or 192)
    where = Counter(each.faults[0].at.where for each in planned)
    assert where[Where.PREFILL] == 3
    assert abs(where[Where.IN_FLIGHT] - where[Where.DECODE]) <= 4
    num_sampled = sum(each.client.temperature > 0 for each in planned)
    assert abs(num_sampled - len(planned) / 2) <= 2
    assert Counter(each.faults[0].hop for each in planned) == {
        hop: len(planned) // 3 for hop in range(3)
    }


def test_one_trial_per_hop_breaks_it_in_mid_text(cache: Path) -> None:
    planned = scenarios(cache, trials=3, tokens=112)
    places = [(each.faults[0].hop, each.faults[0].at.token) for each in planned]
    assert places == [(0, 56), (1, 56), (2, 56)]


def test_every_layer_has_somebody_left(cache: Path) -> None:
    (first, *_) = scenarios(cache, hops=2, trials=1)
    assert [(str(node.layers), node.count) for node in first.nodes] == [("0-2", 2), ("3-5", 2)]
    (builtin,) = scenarios(cache, hops=4, trials=1, model="builtin")
    assert [str(node.layers) for node in builtin.nodes] == ["0-6", "7-13", "14-19", "20-26"]


@pytest.mark.parametrize(
    "settings",
    [
        {"hops": 0},
        {"hops": 17},
        {"tokens": 0},
        {"prompt_tokens": 5000},
        {"trials": 0},
        {"delay_ms": -1},
        {"delay_ms": float("nan")},
    ],
)
def test_nonsense_is_refused(settings: dict[str, Any], cache: Path) -> None:
    with pytest.raises(BadRequest, match=next(iter(settings))):
        scenarios(cache, **settings)


async def test_an_interrupted_sweep_goes_on_where_it_was(tmp_path: Path, cache: Path) -> None:
    planned = scenarios(cache, trials=6)
    first = FakeBackend(fails_at=planned[4].name)
    record = open_record(tmp_path, "memory", "abc123", SETTINGS)
    with pytest.raises(NoChain):
        async with aclosing(run_sweep(planned, first, record)) as ended:
            async for _ in ended:
                pass
    assert not record.file.exists()

    second = FakeBackend()
    record = open_record(tmp_path, "memory", "abc123", SETTINGS)
    seen = [(each.scenario, is_new) async for each, is_new in run_sweep(planned, second, record)]
    assert seen == [(each.name, index >= 4) for index, each in enumerate(planned)]
    assert second.ran == [each.name for each in planned[4:]]
    assert len(read_record(record.file)[1]) == 6


def test_an_unknown_transport_is_refused(cache: Path) -> None:
    with pytest.raises(BadRequest, match="write one of auto, namespaces, memory"):
        choose_lab("pigeons", cache, "unknown")
    assert choose_lab("memory", cache, "unknown").transport == "memory"
