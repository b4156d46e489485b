"""The doors of a private swarm."""

from __future__ import annotations

import pytest

from p2pnode.lab.strangers import CASES, DOORS, LESSER, intruder, private_node, strangers_in

pytestmark = pytest.mark.virtual_time


async def test_nobody_gets_in_by_any_door_without_a_good_warrant() -> None:
    tried = await strangers_in()
    assert len(tried) == len(DOORS) * len(CASES) + len(LESSER)
    assert [where for where, is_in in tried.items() if is_in] == []


@pytest.mark.parametrize("door", DOORS)
async def test_a_member_that_may_serve_gets_in_by_every_door(door: str) -> None:
    async with private_node() as lab, intruder(lab, "serve") as member:
        assert await member.enters(door)


@pytest.mark.parametrize("door", [door for door in DOORS if door not in LESSER])
async def test_a_member_that_may_use_gets_in_by_all_doors_but_that_of_announcing(door: str) -> None:
    async with private_node() as lab, intruder(lab, "use") as member:
        assert await member.enters(door)


async def test_a_greeting_is_good_once() -> None:
    async with private_node() as lab, intruder(lab, "serve") as member:
        said: dict[str, tuple[bytes, bytes]] = {}
        honest = member.show

        def again(protocol: str, nonce: bytes) -> tuple[bytes, bytes]:
            return said.setdefault(protocol, honest(protocol, nonce))

        object.__setattr__(member, "show", again)
        assert [await member.enters(DOORS[0]) for _ in range(2)] == [True, False]
