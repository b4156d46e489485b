"""Real packets between real namespaces: delay, rate, loss, silence, NAT, and nothing left."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import pytest

from p2pnode.lab.presets import Link
from p2pnode.lab.wan import kernel, namespaces
from p2pnode.lab.wan.helper import python_environment
from p2pnode.lab.wan.namespaces import Nat, NoNamespaces
from p2pnode.lab.wan.network import WanNetwork, access_of
from p2pnode.lab.wan.packets import Access, Line

PORT = 5000
DELAY_S = 0.01
ENDS_WITHIN_S = 10.0
"""A killed emulator: the kernel takes its devices away first."""
OPEN, PERFECT = Access(), Line()


def why_not() -> str:
    """Why this machine has no lab; empty where it has one."""
    try:
        namespaces.check_rights()
    except NoNamespaces as error:
        return str(error)
    return ""


needs_namespaces = pytest.mark.skipif(bool(why_not()), reason=why_not())


def opened(network: WanNetwork, name: str, port: int = 0) -> socket.socket:
    """A UDP socket on that machine."""
    with kernel.visiting(network.namespace(name).name):
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("0.0.0.0", port))
    made.settimeout(2.0)
    return made


def round_trips(network: WanNetwork, times: int, wait_s: float = 2.0) -> list[float]:
    """From a to b and back, in seconds; fewer than asked for when some are lost."""
    there, back = opened(network, "b", PORT), opened(network, "a")
    target = (network.namespace("b").address, PORT)
    found = []
    with there, back:
        for each in (there, back):
            each.settimeout(wait_s)
        for _ in range(times):
            began = time.monotonic()
            back.sendto(b"?", target)
            try:
                there.sendto(b"!", there.recvfrom(100)[1])
                back.recvfrom(100)
            except TimeoutError:
                continue
            found.append(time.monotonic() - began)
    return found


def burst(network: WanNetwork, num_packets: int, size: int) -> list[float]:
    """When the packets of a burst from a arrive at b, in seconds."""
    there, sender = opened(network, "b", PORT), opened(network, "a")
    target = (network.namespace("b").address, PORT)
    times = []
    with there, sender:
        there.settimeout(0.5)
        for _ in range(num_packets):
            sender.sendto(bytes(size), target)
        try:
            while True:
                there.recvfrom(2 * size)
                times.append(time.monotonic())
        except TimeoutError:
            return times


async def two(network: WanNetwork, access: Access = OPEN, line: Line = PERFECT) -> None:
    """Machines a and b."""
    for name in ("a", "b"):
        await network.add(name, access)
    await network.set_lines({("a", "b"): line, ("b", "a"): line})


@needs_namespaces
async def test_a_round_trip_takes_twice_the_delay() -> None:
    async with WanNetwork() as network:
        await two(network, line=Line(delay_s=DELAY_S))
        found = await asyncio.to_thread(round_trips, network, 30)
    assert len(found) == 30
    assert 2 * DELAY_S <= min(found)
    assert median(found) < 2 * DELAY_S + 0.010


@needs_namespaces
async def test_a_burst_comes_at_the_rate_of_the_uplink_and_the_rest_of_it_not_at_all() -> None:
    async with WanNetwork() as network:
        await two(network, access_of(Link(up_mbit=8)))
        times = await asyncio.to_thread(burst, network, 100, 972)  # 1,000 bytes with headers
        took_s = times[-1] - times[0]
        await asyncio.to_thread(burst, network, 400, 972)
        counts = await network.counts()
    assert len(times) == 100
    assert 0.08 < took_s < 0.15  # 99 kB at 1 MB/s
    assert 150 < counts["dropped"] < 210  # 200 ms wait, the others find no room


@needs_namespaces
async def test_a_share_of_packets_is_lost_until_the_line_is_healed() -> None:
    async with WanNetwork(seed=5) as network:
        await two(network)
        await network.lose("b", 0.1)
        await asyncio.to_thread(burst, network, 500, 10)
        lost = (await network.counts())["lost"]
        await network.heal("b")
        await asyncio.to_thread(burst, network, 100, 10)
        assert (await network.counts())["lost"] == lost
    assert 25 < lost < 80


@needs_namespaces
async def test_silence_goes_one_way_or_both_and_ends() -> None:
    async with WanNetwork() as network:
        await two(network)
        await network.silence_one_way("b", "a")
        assert await asyncio.to_thread(round_trips, network, 1, 0.1) == []
        assert len(await asyncio.to_thread(burst, network, 5, 10)) == 5
        await network.heal("a")
        assert len(await asyncio.to_thread(round_trips, network, 3)) == 3
        await network.silence(["a"])
        assert await asyncio.to_thread(burst, network, 5, 10) == []


@needs_namespaces
@pytest.mark.parametrize(("nat", "is_same"), [("cone", True), ("symmetric", False)])
async def test_a_nat_maps_a_port_for_all_or_for_each_and_lets_nobody_in(
    nat: Nat, is_same: bool
) -> None:
    async with WanNetwork() as network:
        inside = await network.add("inside", Access(), nat)
        await two(network)
        ports, seen = await asyncio.to_thread(_mapped, network)
        outsider = await asyncio.to_thread(_reaches, network, (inside.address, ports[0]))
    assert seen == {inside.address}
    assert (ports == [PORT, PORT]) is is_same
    assert (ports[0] == ports[1]) is is_same
    assert outsider == "only whom it was sent to"


def _mapped(network: WanNetwork) -> tuple[list[int], set[str]]:
    """From which ports, and whom, others see what one socket behind the NAT sends."""
    with opened(network, "inside", PORT) as inside:
        ports, hosts = [], set()
        for name in ("a", "b"):
            with opened(network, name, PORT) as other:
                inside.sendto(b"?", (network.namespace(name).address, PORT))
                host, port = other.recvfrom(100)[1]
            ports.append(port)
            hosts.add(host)
    return ports, hosts


def _reaches(network: WanNetwork, mapped: tuple[str, int]) -> str:
    """Whether an answer comes in from another port of the peer that was sent to."""
    with opened(network, "inside", PORT) as inside, opened(network, "a", PORT) as known:
        with opened(network, "a", PORT + 1) as stranger:
            stranger.sendto(b"!", mapped)
            known.sendto(b"!", mapped)
            answer = inside.recvfrom(100)[1][1]
            inside.settimeout(0.2)
            try:
                inside.recvfrom(100)
            except TimeoutError:
                return "only whom it was sent to" if answer == PORT else "the stranger"
    return "both"


@needs_namespaces
async def test_what_a_killed_lab_leaves_is_removed_by_the_next_one() -> None:
    program = Path(__file__).with_name("wan_lab_that_waits.py")
    lab = await asyncio.create_subprocess_exec(
        sys.executable, str(program), stdout=subprocess.PIPE, env=python_environment()
    )
    assert lab.stdout is not None
    emulator = os.pidfd_open(int(await lab.stdout.readline()))
    lab.send_signal(signal.SIGKILL)
    await lab.wait()
    names = {f"{namespaces.PREFIX}-{lab.pid}-{index}" for index in range(2)}
    assert names <= {path.name for path in kernel.NAMESPACES.iterdir()}
    async with WanNetwork():
        assert not names & {path.name for path in kernel.NAMESPACES.iterdir()}
    ended, _, _ = await asyncio.to_thread(select.select, [emulator], [], [], ENDS_WITHIN_S)
    os.close(emulator)
    assert ended


def test_without_the_right_there_is_one_line_that_says_what_to_do() -> None:
    was = os.geteuid()
    try:
        if was == 0:
            os.seteuid(65534)
        with pytest.raises(NoNamespaces, match="run as root on Linux, or use the in-memory"):
            namespaces.check_rights()
    finally:
        os.seteuid(was)
