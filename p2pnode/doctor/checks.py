"""From what was seen to graded checks: how it came out, by which numbers, what to do. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from p2pnode.doctor.here import Here
from p2pnode.doctor.report import Check, Grade
from p2pnode.doctor.words import ms, name
from p2pnode.log import escape
from p2pnode.model.sensors import Gpu
from p2pnode.types import Announcement, PeerId, SwarmView

FULL_SHARE = 0.90
"""Of a device's memory in use."""
IDLE_LOAD = 0.05
EXPLAINED_SHARE = 0.10
"""What may be in use besides what our own nodes announce."""
LOW_MEMORY_SHARE, NO_MEMORY_SHARE = 0.10, 0.03
SWAPPING_BYTES_PER_S = 4 << 20
LOW_DISK_BYTES, NO_DISK_BYTES = 2 << 30, 200 << 20
HOT_C = 90.0
"""Where a sensor does not say what is too hot."""
NEAR_LIMIT_C = 3.0
FALLEN_RATE = 0.5
"""A device that moves less than this share of what it moved when its node started is held up."""
CLOCK_OFF_S = 3.0
"""Nodes with clocks further apart do not take each other's records."""
SLOW_DIRECTORY_S = 3.0

OK, WARNING, BAD = Grade.OK, Grade.WARNING, Grade.BAD


def pressure(here: Here) -> str:
    """What is wrong with this machine's memory, bad enough to be a cause; empty: nothing."""
    bad = [each for each in (memory(here), swap(here)) if each.grade is BAD]
    return "; ".join(each.evidence for each in bad)


def device_now(here: Here, own: Sequence[Announcement]) -> str:
    """What the device does now against what it did when its node started, and how hot it is."""
    if here.device is None:
        return ""
    found = [device(here, own).evidence, *(heat(gpu).evidence for gpu in here.gpus)]
    if here.temperature is not None:
        found.append(_processor_heat(here).evidence)
    return "; ".join(found)


def checks_here(here: Here, own: Sequence[Announcement]) -> list[Check]:
    """All about this machine; own: what the nodes that run here announce."""
    found = [disk(here), memory(here), swap(here), port(here), device(here, own)]
    found += [vram(gpu, own) for gpu in here.gpus]
    found += [heat(gpu) for gpu in here.gpus]
    if here.temperature is not None:
        found.append(_processor_heat(here))
    return [*found, model_files(here)]


# --- this machine


def disk(here: Here) -> Check:
    """Whether the home can be written, and how much room there is."""
    where = escape(here.disk_folder)
    if here.disk_error or here.disk_free_bytes is None:
        what = f"{where} cannot be written: {escape(here.disk_error)}"
        return _check("disk", BAD, what, "give a folder of yours with --home or P2PNODE_HOME")
    free = here.disk_free_bytes
    grade = BAD if free < NO_DISK_BYTES else WARNING if free < LOW_DISK_BYTES else OK
    return _check("disk", grade, f"{_gb(free)} free in {where}", "free some room there")


def memory(here: Here) -> Check:
    """What programs can still get."""
    share = here.memory_free_bytes / max(here.memory_total_bytes, 1)
    grade = BAD if share < NO_MEMORY_SHARE else WARNING if share < LOW_MEMORY_SHARE else OK
    evidence = f"{_gb(here.memory_free_bytes)} of {_gb(here.memory_total_bytes)} RAM available"
    return _check("memory", grade, evidence, "end what else needs memory, or serve fewer layers")


def swap(here: Here) -> Check:
    """Swap in use slows nobody by itself; to move pages in and out does."""
    is_swapping = here.swap_bytes_per_s > SWAPPING_BYTES_PER_S
    grade = BAD if is_swapping else WARNING if here.swap_used_bytes else OK
    evidence = f"{_gb(here.swap_used_bytes)} of swap in use"
    if is_swapping:
        evidence += f", {here.swap_bytes_per_s / 1e6:.0f} MB/s in and out"
    remedy = "what was swapped out is slow to come back: free memory, restart the node"
    return _check("swap", grade, evidence, remedy)


def port(here: Here) -> Check:
    """Whether a node could listen where others expect it."""
    if not here.port_error:
        return _check("port", OK, f"TCP and UDP {here.port} are free")
    if here.own_peers:
        return _check("port", OK, f"{escape(here.port_error)}: nodes run in this home")
    remedy = "serve takes the next free port; or end what listens there, or give --port"
    return _check("port", WARNING, escape(here.port_error), remedy)


def device(here: Here, own: Sequence[Announcement]) -> Check:
    """The device, and what it moves now against what it moved when our node measured it."""
    if here.device is None and not here.device_error:
        return _check("device", WARNING, "it was not looked at in time", "try again")
    if here.device is None:
        what = f"no device answers: {escape(here.device_error)}"
        return _check("device", BAD, what, "check its driver; --device cpu works anywhere")
    rate = here.memory_bytes_per_s or 0.0
    evidence = f"{here.device}, moves {rate / 1e9:.1f} GB/s"
    before = max((a.memory_bytes_per_s for a in own), default=0.0)
    if before and rate < FALLEN_RATE * before:
        evidence += f"; {before / 1e9:.1f} GB/s when its node started"
        return _check("device", WARNING, evidence, "see what else runs here, and how hot it is")
    return _check("device", OK, evidence)


def vram(gpu: Gpu, own: Sequence[Announcement]) -> Check:
    """Above `FULL_SHARE`: under load a warning, without load a leak or a stale process.

    What our own nodes announce that they use explains itself.
    """
    share = gpu.used_bytes / max(gpu.total_bytes, 1)
    evidence = f"{gpu.name}: {share:.0%} of {_gb(gpu.total_bytes)} in use, load {gpu.load:.0%}"
    if share <= FULL_SHARE:
        return _check("vram", OK, evidence)
    if gpu.load > IDLE_LOAD:
        remedy = "sessions may be refused: serve fewer layers, or limit the node with --vram"
        return _check("vram", WARNING, evidence, remedy)
    ours = max(
        (a.vram_total_bytes - a.vram_free_bytes for a in own if a.device != "cpu"), default=0
    )
    if gpu.used_bytes - ours < EXPLAINED_SHARE * gpu.total_bytes:
        return _check("vram", OK, f"{evidence}; {_gb(ours)} of it is our node's block and sessions")
    held = ", ".join(f"process {pid} {_gb(size)}" for pid, size in gpu.holders[:4])
    what = f"{evidence}: a leak or a stale process ({held or 'no process is told'})"
    return _check("vram", BAD, what, "end the process that holds it, or restart the node")


def heat(gpu: Gpu) -> Check:
    """Whether it is slowed down."""
    where = gpu.name if gpu.celsius is None else f"{gpu.name}: {gpu.celsius:.0f} C"
    limit = gpu.limit or HOT_C
    if gpu.slowed_by:
        what = f"{where}, slowed by {', '.join(gpu.slowed_by)}"
        return _check("heat", WARNING, what, "cool it, or raise its power limit")
    if gpu.celsius is not None and gpu.celsius > limit - NEAR_LIMIT_C:
        return _check("heat", WARNING, f"{where}, is slowed at {limit:.0f} C", "cool it")
    return _check("heat", OK, where)


def _processor_heat(here: Here) -> Check:
    sensor = here.temperature
    if sensor is None:
        return _check("heat", OK, "no sensor tells")
    limit = sensor.limit or HOT_C
    grade = WARNING if sensor.celsius > limit - NEAR_LIMIT_C else OK
    evidence = f"processor: {sensor.celsius:.0f} C, is slowed at {limit:.0f} C"
    return _check("heat", grade, evidence, "cool it: fans, dust, fewer threads")


def model_files(here: Here) -> Check:
    """Headers and sizes of the weights, where they are here."""
    if here.model_error:
        return _check("model", BAD, escape(here.model_error, 300), "fetch or export it again")
    if here.model is None:
        return _check("model", WARNING, "its files were not looked at in time", "try again")
    if not here.model:
        return _check("model", OK, "its files are not here, and are not needed to probe")
    return _check("model", OK, f"all weights are there: {escape(here.model)}")


# --- the swarm


def network(here: Here) -> Check:
    """Whether there is any network at all."""
    if here.has_network:
        return _check("interfaces", OK, "an interface besides loopback has an address")
    remedy = "connect this machine; nodes on it can still find each other"
    return _check("interfaces", WARNING, "only loopback is up", remedy)


def bootstrap(answers: Mapping[PeerId, str], *, has_joined: bool) -> list[Check]:
    """One per peer through which we could join; an empty text is an answer, else the reason."""
    if not answers:
        if has_joined:
            return [_check("bootstrap", OK, "joined through peers that were known")]
        what = "no node runs in this home, no peer is remembered, bootstrap_peers.txt names none"
        return [_check("bootstrap", WARNING, what, "name a node with --join ADDRESS")]
    failed = WARNING if has_joined else BAD
    return [
        _check("bootstrap", OK, f"{name(peer)} answers")
        if not why
        else _check("bootstrap", failed, escape(why, 300), "take it off the list if it stays away")
        for peer, why in answers.items()
    ]


def clock(ahead_s: float | None, refused: str) -> Check:
    """This machine's clock against the peers'; refused: what they said when it is off."""
    if refused:
        return _check("clock", BAD, escape(refused, 300), "set this machine's clock (NTP)")
    if ahead_s is None:
        return _check("clock", WARNING, "no peer to compare the clock with")
    off = f"{abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'} the peers'"
    if abs(ahead_s) > CLOCK_OFF_S:
        return _check("clock", BAD, f"this machine's clock is {off}", "set it (NTP)")
    return _check("clock", OK, f"within {CLOCK_OFF_S:.0f} s of the peers' clocks")


def reachability(is_dialable: bool | None, punched: bool | None) -> Check:
    """Whether others can dial this machine, and what its NAT lets through.

    punched: whether a peer that cannot be dialled was reached all the same; None: not tried
    """
    if is_dialable:
        return _check("nat", OK, "peers can dial this machine")
    remedy = "open the node's port in router and firewall and announce it (--announce)"
    if is_dialable is None:
        return _check("nat", WARNING, "no peer has tried to dial this machine", remedy)
    if punched:
        return _check("nat", OK, "behind a NAT that can be punched (cone); peers help to meet")
    what = "peers cannot dial this machine"
    if punched is False:
        what += ", and a NAT or firewall lets no hole through (symmetric, or UDP is closed)"
    return _check("nat", WARNING, what, f"{remedy}; else clients carry its steps")


def directory(took_s: float | None, view: SwarmView) -> Check:
    """The round trip through the directory."""
    if took_s is None:
        return _check("directory", BAD, "it was not read in time", "see the bootstrap peers")
    evidence = f"read in {ms(took_s)}: {len(view.announcements)} announcements"
    grade = WARNING if took_s > SLOW_DIRECTORY_S else OK
    return _check("directory", grade, evidence, "dead peers are asked: it gets better in a minute")


def through_others(hidden: Iterable[PeerId], reached: Mapping[PeerId, bool]) -> Check:
    """Peers that cannot be dialled, and whether others brought us together with them."""
    those = list(hidden)
    if not those:
        return _check("through-others", OK, "every peer can be dialled")
    failed = [peer for peer in those if reached.get(peer) is False]
    what = f"{len(those)} peers cannot be dialled, {sum(map(bool, reached.values()))} of "
    what += f"{len(reached)} tried were reached through others"
    if failed:
        remedy = "clients carry the steps of those; a node with an open port helps"
        return _check("through-others", WARNING, what, remedy)
    return _check("through-others", OK, what)


def _check(what: str, grade: Grade, evidence: str, remedy: str = "") -> Check:
    return Check(name=what, grade=grade, evidence=evidence, remedy="" if grade is OK else remedy)


def _gb(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.1f} GB"
