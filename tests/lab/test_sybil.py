"""Sybils in few networks, simulated small."""

from __future__ import annotations

import pytest

from p2pnode.lab.sybil import GROUPS, Aim, run_attack


@pytest.mark.parametrize("aim", Aim)
def test_sybils_hide_nothing_and_forge_nothing(aim: Aim) -> None:
    found = run_attack(num_nodes=24, aim=aim, lookups=2)
    assert (found.lookups, found.whole, found.forged) == (2, 2, 0)


def test_sybils_in_as_many_networks_as_they_are_hide_a_lot() -> None:
    found = run_attack(num_nodes=40, share=0.5, aim=Aim.TWO_KEYS, lookups=1, groups=1000)
    assert GROUPS < 1000
    assert found.whole == 0
