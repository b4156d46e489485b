"""Checks of this machine and of the swarm: how they are graded, at the boundaries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from p2pnode.config import Home
from p2pnode.doctor import checks
from p2pnode.doctor.here import Here, look
from p2pnode.doctor.report import Check, Grade
from p2pnode.model.device import Device
from p2pnode.model.sensors import Gpu, Temperature
from tests.support.peers import announced, peer

GB = 1 << 30
HERE = Here(memory_total_bytes=100 * GB, memory_free_bytes=50 * GB)
GPU = Gpu(
    name="GPU", total_bytes=100 * GB, used_bytes=95 * GB, load=0.0, holders=((4711, 94 * GB),)
)
OK, WARNING, BAD = Grade.OK, Grade.WARNING, Grade.BAD


def test_a_remedy_is_said_only_where_something_is_wrong() -> None:
    assert checks.memory(HERE).remedy == ""
    assert checks.memory(replace(HERE, memory_free_bytes=GB)).remedy != ""


@pytest.mark.parametrize(("free", "grade"), [(10, OK), (9, WARNING), (3, WARNING), (2, BAD)])
def test_memory(free: int, grade: Grade) -> None:
    here = replace(HERE, memory_free_bytes=free * GB)
    assert checks.memory(here).grade is grade
    assert bool(checks.pressure(here)) is (grade is BAD)


def test_swap_in_use_is_a_warning_and_swapping_is_bad() -> None:
    assert checks.swap(HERE).grade is OK
    used = replace(HERE, swap_used_bytes=GB)
    assert checks.swap(used).grade is WARNING
    assert checks.pressure(used) == ""
    assert checks.swap(replace(used, swap_bytes_per_s=1e8)).grade is BAD


@pytest.mark.parametrize(
    ("free_bytes", "error", "grade"),
    [(3 * GB, "", OK), (GB, "", WARNING), (100 << 20, "", BAD), (None, "Read-only", BAD)],
)
def test_disk(free_bytes: int | None, error: str, grade: Grade) -> None:
    here = replace(HERE, disk_free_bytes=free_bytes, disk_error=error)
    assert checks.disk(here).grade is grade


def test_a_port_in_use_is_explained_by_our_own_node() -> None:
    busy = replace(HERE, port_error="TCP 4001: Address already in use")
    assert checks.port(HERE).grade is OK
    assert checks.port(busy).grade is WARNING
    assert checks.port(replace(busy, own_peers=frozenset({peer("A")}))).grade is OK


def test_full_vram_is_a_warning_under_load_and_a_leak_without() -> None:
    assert checks.vram(replace(GPU, used_bytes=90 * GB), []).grade is OK
    assert checks.vram(replace(GPU, load=0.5), []).grade is WARNING
    idle = checks.vram(GPU, [])
    assert idle.grade is BAD
    assert "leak or a stale process (process 4711" in idle.evidence


def test_vram_that_our_own_node_announces_is_no_leak() -> None:
    own = announced("A", "0-8", device="cuda", vram_total_bytes=100 * GB, vram_free_bytes=8 * GB)
    assert checks.vram(GPU, [own]).grade is OK
    assert checks.vram(GPU, [replace(own, vram_free_bytes=40 * GB)]).grade is BAD


def test_heat() -> None:
    assert checks.heat(GPU).grade is OK
    assert checks.heat(replace(GPU, celsius=80.0, limit=90.0)).grade is OK
    assert checks.heat(replace(GPU, celsius=88.0, limit=90.0)).grade is WARNING
    assert checks.heat(replace(GPU, celsius=60.0, slowed_by=("heat",))).grade is WARNING
    hot = replace(HERE, temperature=Temperature(99.0, 100.0))
    assert [each.grade for each in checks.checks_here(hot, []) if each.name == "heat"] == [WARNING]


def test_a_device_is_held_against_what_its_node_measured() -> None:
    here = replace(HERE, device=Device("cpu", "cpu", GB, GB), memory_bytes_per_s=6e9)
    assert checks.device(HERE, []).grade is WARNING
    assert checks.device(replace(HERE, device_error="no driver"), []).grade is BAD
    assert checks.device(here, []).grade is OK
    before = announced("A", "0-8", memory_bytes_per_s=1e10)
    assert checks.device(here, [before]).grade is OK
    assert checks.device(here, [replace(before, memory_bytes_per_s=1.3e10)]).grade is WARNING


def test_the_device_now_is_its_bandwidth_and_its_heat() -> None:
    assert checks.device_now(HERE, []) == ""
    here = replace(
        HERE,
        device=Device("cpu", "CPU", GB, GB),
        memory_bytes_per_s=6e9,
        temperature=Temperature(71.0, 100.0),
        gpus=(replace(GPU, celsius=64.0),),
    )
    now = checks.device_now(here, [announced("A", "0-8", memory_bytes_per_s=1.3e10)])
    assert "moves 6.0 GB/s; 13.0 GB/s when its node started" in now
    assert now.endswith("GPU: 64 C; processor: 71 C, is slowed at 100 C")


def test_bootstrap_peers_one_by_one() -> None:
    answers = {peer("A"): "", peer("B"): "no answer\x1b[31m in 3 s"}
    for has_joined, grade in ((True, WARNING), (False, BAD)):
        good, bad = checks.bootstrap(answers, has_joined=has_joined)
        assert (good.grade, bad.grade) == (OK, grade)
        assert "\x1b" not in bad.evidence
    (nobody,) = checks.bootstrap({}, has_joined=False)
    assert nobody.grade is WARNING


@pytest.mark.parametrize(
    ("ahead_s", "refused", "grade"),
    [
        (2.9, "", OK),
        (-2.9, "", OK),
        (3.1, "", BAD),
        (-70.0, "", BAD),
        (None, "", WARNING),
        (0.0, "4 s", BAD),
    ],
)
def test_the_clock(ahead_s: float | None, refused: str, grade: Grade) -> None:
    assert checks.clock(ahead_s, refused).grade is grade


def test_reachability() -> None:
    assert checks.reachability(True, None).grade is OK
    assert checks.reachability(False, True).grade is OK
    assert "symmetric" in checks.reachability(False, False).evidence
    assert checks.reachability(False, None).grade is WARNING
    assert checks.reachability(None, None).grade is WARNING


def test_connections_through_others() -> None:
    a, b = peer("A"), peer("B")
    assert checks.through_others([], {}).grade is OK
    assert checks.through_others([a, b], {a: True}).grade is OK
    assert checks.through_others([a, b], {a: True, b: False}).grade is WARNING


# --- looking at a real machine


def last(looks: Iterator[Here]) -> Here:
    *_, here = looks
    return here


def the(name: str, found: list[Check]) -> Check:
    return next(each for each in found if each.name == name)


def test_this_machine_is_seen(tmp_path: Path) -> None:
    here = last(look(Home(tmp_path / "not yet made"), None))
    assert here.memory_total_bytes > here.memory_free_bytes > 0
    assert here.memory_bytes_per_s is not None
    found = checks.checks_here(here, [])
    assert the("disk", found).grade is not BAD
    assert the("model", found).grade is OK
    assert the("device", found).grade is OK
    assert not (tmp_path / "not yet made" / "run").exists()


def test_files_of_a_model_that_are_cut_are_named(tmp_path: Path, tiny: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in tiny.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    assert last(look(Home(tmp_path), str(folder))).model_error == ""
    weights = next(folder.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    here = last(look(Home(tmp_path), str(folder)))
    assert "cut or corrupted" in here.model_error
    assert checks.model_files(here).grade is BAD
    assert last(look(Home(tmp_path), "nobody/nothing")).model_error == ""


def test_what_was_not_looked_at_in_time_is_no_success() -> None:
    assert checks.model_files(HERE).grade is WARNING
    assert checks.model_files(replace(HERE, model="")).grade is OK


def test_a_home_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")
    here = last(look(Home(file), "nobody/nothing"))
    assert checks.disk(here).grade is BAD
