"""What `p2pnode plan` runs and shows; imported by its command only, since it needs torch."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from p2pnode.cli.output import Output
from p2pnode.cli.plan_table import Setting, Shown, gb, show
from p2pnode.cli.run import run_async
from p2pnode.config import ClientConfig, NodeConfig, SwarmConfig
from p2pnode.errors import BadRequest, ModelUnsupported
from p2pnode.model.check import ensure_config_supported
from p2pnode.model.device import choose_device, measure_bandwidth, measure_flops
from p2pnode.model.memory import read_sizes
from p2pnode.model.source import find_config
from p2pnode.model.spec import read_config_file, spec_of
from p2pnode.numerics import QUANTS, Numerics
from p2pnode.plan.latency import Compute
from p2pnode.plan.machine import MAX_MACHINES, OPERATIONS_PER_BYTE, Machine, Ways, Work
from p2pnode.plan.plan import Prices, make_plan
from p2pnode.sizes import ModelSizes
from p2pnode.swarm.p2p_network import client_network
from p2pnode.swarm.watch import watching
from p2pnode.types import Announcement, Liveness, ModelSpec, SwarmView

DEFAULT_CONTEXT = 2048
DEFAULT_BYTES_PER_S = 300e9
DEFAULT_RTT_S = 0.04
DEFAULT_UP_BYTES_PER_S = 20e6 / 8
LISTEN_WITHIN_S = 4.0
"""How long gossip has to tell where the peers are."""
UNSURE_FROM = 0.9
"""Coordinates with such an error say nothing about round trips."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The options of the command; None: not given."""

    model: str
    dtype: str
    quant: str
    context_tokens: int | None
    batch: int
    memories_bytes: tuple[int, ...]
    memory_bytes_per_s: tuple[float, ...]
    rtt_s: float | None
    up_bytes_per_s: float | None
    watts: float | None
    price_kwh: float | None
    cloud_price: float | None


def show_plan(asked: Asked, swarm: SwarmConfig, *, asks_swarm: bool, output: Output) -> None:
    """Plan and print; raises BadRequest, UnknownModel, ModelFilesError, ModelUnsupported."""
    prices = Prices(watts=asked.watts, price_kwh=asked.price_kwh, cloud_price=asked.cloud_price)
    cache = swarm.home.cache
    name, file = find_config(asked.model, cache=cache)
    config = read_config_file(file)
    spec = spec_of(config, name, "")
    ensure_config_supported(config, name, cache=cache)
    context = asked.context_tokens
    work = Work(
        context_tokens=min(DEFAULT_CONTEXT, spec.max_positions) if context is None else context,
        batch=asked.batch,
        chunk_tokens=NodeConfig().prefill_chunk_tokens,
    )
    sizes = _sizes(config, asked)
    if asks_swarm:
        setting = _of_swarm(spec, sizes[asked.quant], asked, swarm)
    else:
        setting = _of_options(asked)
    plan = make_plan(sizes, asked.quant, setting.machines, setting.ways, work)
    numerics = Numerics(asked.dtype, quant=asked.quant)
    show(Shown(plan, spec, numerics, setting, prices), output)


def _sizes(config: Any, asked: Asked) -> dict[str, ModelSizes]:
    """As asked for, and with each quantisation that makes it smaller still, where it can be."""
    found = {asked.quant: read_sizes(config, asked.dtype, quant=asked.quant)}
    for quant in QUANTS[QUANTS.index(asked.quant) + 1 if asked.quant else 0 :]:
        try:
            found[quant] = read_sizes(config, asked.dtype, quant=quant)
        except ModelUnsupported:
            break
    return found


# --- machines


def _of_options(asked: Asked) -> Setting:
    ways = _ways(asked, DEFAULT_RTT_S, DEFAULT_UP_BYTES_PER_S)
    if asked.memories_bytes:
        speeds = asked.memory_bytes_per_s or (DEFAULT_BYTES_PER_S,) * len(asked.memories_bytes)
        machines = tuple(
            Machine(
                name=gb(memory),
                memory_bytes=memory,
                memory_bytes_per_s=speed,
                flops_per_s=speed * OPERATIONS_PER_BYTE,
            )
            for memory, speed in zip(asked.memories_bytes, speeds, strict=True)
        )
        return Setting(machines, ways, "vram")
    device = choose_device()
    here = Machine(
        name=f"this machine ({device.name})",
        memory_bytes=device.free_bytes,
        memory_bytes_per_s=measure_bandwidth(device),
        flops_per_s=measure_flops(device, asked.dtype),
    )
    return Setting((here,), ways, "this machine")


def _ways(asked: Asked, rtt_s: float, up_bytes_per_s: float) -> Ways:
    return Ways(
        rtt_s=rtt_s if asked.rtt_s is None else asked.rtt_s,
        up_bytes_per_s=up_bytes_per_s if asked.up_bytes_per_s is None else asked.up_bytes_per_s,
    )


def _of_swarm(spec: ModelSpec, sizes: ModelSizes, asked: Asked, swarm: SwarmConfig) -> Setting:
    view = run_async(_listen(ClientConfig(swarm=swarm, cache=swarm.home.cache)))
    return setting_of(view, spec, sizes, asked)


async def _listen(config: ClientConfig) -> SwarmView:
    async with watching(client_network(config), config) as watch:
        return await watch.settled(LISTEN_WITHIN_S)


def setting_of(view: SwarmView, spec: ModelSpec, sizes: ModelSizes, asked: Asked) -> Setting:
    """The machines of a swarm, the largest ones; raises BadRequest where nobody is there."""
    numerics = str(Numerics(asked.dtype, quant=asked.quant))
    there = [a for a in view.announcements if _is_there(view, a)]
    machines = sorted(
        (machine_of(a, spec, sizes, numerics) for a in there),
        key=lambda machine: -machine.memory_bytes,
    )[:MAX_MACHINES]
    if not machines:
        raise BadRequest("nobody serves in this swarm; give --vram instead of --swarm")
    uplinks = [a.up_bytes_per_s for a in there if a.up_bytes_per_s > 0]
    up = statistics.median(uplinks) if uplinks else DEFAULT_UP_BYTES_PER_S
    ways = _ways(asked, rtt_between(view), min(max(up, 1e3), 1e12))
    return Setting(tuple(machines), ways, "swarm")


def _is_there(view: SwarmView, a: Announcement) -> bool:
    """Whether gossip has nothing against it."""
    known = view.health.get(a.peer)
    return known is None or known.liveness is Liveness.ALIVE


def machine_of(a: Announcement, spec: ModelSpec, sizes: ModelSizes, numerics: str) -> Machine:
    """A peer as a machine: what it has free, and what its part of this model takes now.

    Where it serves this model, its measured step says how far the formula is off.
    """
    is_ours = (a.model, a.num_layers, a.numerics) == (spec.name, spec.num_layers, numerics)
    is_ours = is_ours and a.layers.stop <= spec.num_layers
    held = sizes.weights_bytes(a.layers) if is_ours else 0
    machine = Machine(
        name=a.peer.short,
        peer=a.peer,
        memory_bytes=max(1, min(a.vram_free_bytes + held, a.vram_total_bytes)),
        memory_bytes_per_s=min(max(a.memory_bytes_per_s, 1e6), 1e15),
        flops_per_s=min(max(a.flops_per_s, 1e6), 1e18),
    )
    if not is_ours or not a.latency_s > 0:
        return machine
    start, stop = a.layers.start, a.layers.stop
    by_formula = Compute(sizes).step_s(machine, start, stop, rows=1, sessions=1, held=0)
    slowness = min(max(a.latency_s / float(by_formula), 0.01), 1e4)
    return Machine(**{**asdict(machine), "slowness": slowness})


def rtt_between(view: SwarmView) -> float:
    """The median of the peers' round trips to each other, by their coordinates."""
    places = [known.health.coordinate for known in view.health.values()]
    sure = [place for place in places if place.error < UNSURE_FROM]
    trips = [one.rtt_s(other) for one, other in combinations(sure, 2)]
    return min(statistics.median(trips), 60.0) if trips else DEFAULT_RTT_S
