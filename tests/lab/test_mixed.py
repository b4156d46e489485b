"""A crowd on peers of mixed speed: its load is what was asked for, and everybody is served right.

`p2pnode bench throughput` measures a large one; this one is small.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pnode.lab.mixed import NUM_LAYERS, requests, run_crowd
from p2pnode.lab.reference import tiny_model
from tests.support.models import greedy

RATE = 400.0


def test_requests_ask_for_so_many_tokens_per_second() -> None:
    wanted = requests(300, seed=3, tokens_per_s=RATE)
    tokens = sum(each.num_tokens for each in wanted)
    assert wanted[0].at_s == 0.0
    assert tokens / wanted[-1].at_s == pytest.approx(RATE, rel=0.03)
    assert [each.at_s for each in wanted] == sorted(each.at_s for each in wanted)


def test_each_gets_the_right_text_and_all_waits_are_counted(tmp_path: Path) -> None:
    wanted = requests(4, seed=1, tokens_per_s=RATE)
    crowd = run_crowd(wanted, tmp_path)
    folder = tiny_model(tmp_path / "lab", NUM_LAYERS)
    for each in wanted:
        assert list(crowd.texts[each.number]) == greedy(folder, list(each.prompt), each.max_tokens)
    assert len(crowd.token_times) == sum(each.max_tokens - 1 for each in wanted)
    assert 0.0 < crowd.busy() < 1.0
    assert all(computing_s > 0.0 for _, computing_s in crowd.per_step_s().values())
