"""Real processes behind real NATs: nobody can dial a hop, and the chain serves all the same."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from p2pnode.errors import LocalError
from p2pnode.lab.scenario_file import load_scenario
from p2pnode.lab.wan.launcher import Launch
from p2pnode.lab.wan.namespaces import Nat
from p2pnode.lab.wan.network import WanNetwork
from p2pnode.lab.wan.packets import Access, Line
from p2pnode.lab.wan.processes import Program, Programs
from p2pnode.lab.wan.runner import WanLab
from tests.lab.test_wan_network import needs_namespaces
from tests.lab.wan_peer import LinkTo

SCENARIO = Path(__file__).parent / "scenarios" / "nat.toml"
DELAY_S = 0.01
ANSWER_WITHIN_S = 30.0
WARM = ("p2pnode.net.links", "p2pnode.net.reach", "p2pnode.net.libp2p_transport")

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


@dataclass(frozen=True, slots=True)
class Peer:
    """A process with a daemon of its own, in a namespace of its own."""

    program: Program
    id: str
    tcp: tuple[str, ...]
    """Its TCP addresses."""
    host: str
    """How the others see it."""

    async def link_to(self, other: str, addresses: tuple[str, ...] = ()) -> dict[str, Any]:
        """The event that says how it went."""
        self.program.tell(LinkTo(peer=other, addresses=addresses))
        return await heard(self.program)


async def test_cone_nats_are_punched_and_symmetric_ones_are_soon_known_to_keep_two_apart() -> None:
    async with meeting("cone", "cone", "symmetric", "symmetric") as (one, other, *apart):
        found = await one.link_to(other.id)
        refused = [await apart[0].link_to(apart[1].id) for _ in range(2)]
    assert found["event"] == "linked", found
    # The daemon's connection ends at the other's NAT: nobody stands between the two.
    assert found["where"] == [f"{other.host}/udp/4001/quic-v1"]
    assert [each["event"] for each in refused] == ["apart", "apart"], refused
    assert "no hole could be punched" in refused[0]["message"]
    assert refused[1]["took_s"] < refused[0]["took_s"] < 5.0


@asynccontextmanager
async def meeting(*nats: Nat) -> AsyncIterator[list[Peer]]:
    """Peers behind such NATs, all linked to one that can be dialled, of which they know TCP only.

    They know that nobody can dial them.
    """
    with tempfile.TemporaryDirectory(prefix="p2pw-", dir="/tmp") as name:
        folder = Path(name)
        async with WanNetwork() as network, Programs(folder, WARM) as programs:
            there = await peer(network, programs, folder, "none")
            made = [await peer(network, programs, folder, nat) for nat in nats]
            for each in made:
                met = await each.link_to(there.id, there.tcp)
                assert met["event"] == "linked", met
                assert met["is_dialable"] is False
                assert met["where"] == [f"{there.host}/udp/4001/quic-v1"]
            yield made


async def peer(network: WanNetwork, programs: Programs, folder: Path, nat: Nat) -> Peer:
    """Start one on a machine of its own."""
    name = f"p{len(list(folder.glob('p*.log')))}"
    namespace = await network.add(name, Access(), nat)
    others = [f"p{number}" for number in range(int(name[1:]))]
    pairs = [pair for other in others for pair in ((name, other), (other, name))]
    await network.set_lines({pair: Line(delay_s=DELAY_S) for pair in pairs})
    home = folder / name
    home.mkdir()
    launch = Launch(module="tests.lab.wan_peer", arguments=(str(home),), namespace=namespace.name)
    program = await programs.start(name, launch)
    ready = await heard(program)
    tcp = tuple(address for address in ready["addresses"] if "/tcp/" in address)
    return Peer(program, ready["peer"], tcp, f"/ip4/{namespace.address}")


async def heard(program: Program) -> dict[str, Any]:
    """Its next event; LocalError when it has ended."""
    async with asyncio.timeout(ANSWER_WITHIN_S):
        line = await program.events.readline()
    if not line:
        raise LocalError(f"{program.name} ended: {program.last_words()}")
    event: dict[str, Any] = json.loads(line)
    return event
