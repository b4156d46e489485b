"""Real processes behind real NATs: nobody can dial a hop, and the chain serves all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pnode.lab.scenario_file import load_scenario
from p2pnode.lab.wan.runner import WanLab
from tests.lab.test_wan_network import needs_namespaces

SCENARIO = Path(__file__).parent / "scenarios" / "nat.toml"

pytestmark = [pytest.mark.processes, needs_namespaces]


async def test_one_hop_behind_a_cone_nat_and_two_behind_symmetric_ones_serve_a_chain(
    cache: Path,
) -> None:
    scenario = load_scenario(SCENARIO)
    async with WanLab(cache, commit="test") as lab:
        trial = await lab.run(scenario)
    assert trial.error is None
    assert (trial.transport, trial.identical, trial.hung) == ("namespaces", True, False)
    assert trial.tokens == scenario.client.max_tokens
