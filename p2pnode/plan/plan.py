"""The plan for a model: what fits where, how fast, at what price, and what we advise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from p2pnode.errors import BadRequest
from p2pnode.plan.latency import (
    Compute,
    Part,
    Speed,
    chain_speed,
    even_parts,
    one_machine_speed,
    tensor_parallel_speed,
)
from p2pnode.plan.machine import MAX_MACHINES, Machine, Ways, Work
from p2pnode.plan.split import Splitter
from p2pnode.sizes import ModelSizes, Needed
from p2pnode.types import LayerRange

NUM_STAGES = 10
"""The fine split that is shown beside the best one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """The whole model on one machine."""

    machine: Machine
    speed: Speed
    quant: str
    """The quantisation that it takes; that which was asked for, or a smaller one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a model would take and do."""

    sizes: ModelSizes
    work: Work
    parts: tuple[Part, ...]
    """The best arrangement; one part: one machine. Empty: it does not fit."""
    speed: Speed | None
    split: Speed | None
    """The best over two machines or more."""
    alone: Alone | None
    tensor_parallel: Speed | None
    """Over the machines of the best split; None where there is none, as for the next."""
    ten_stages: Speed | None
    there_bytes: int
    """The memory of all machines."""
    smaller: str
    """Does not fit: the quantisation with which it would; empty for none."""

    @property
    def fits(self) -> bool:
        """Whether the machines can serve it as asked."""
        return bool(self.parts)

    @property
    def whole(self) -> Needed:
        """The memory of the whole model in one place."""
        return self._needed(self.sizes.whole)

    def needed(self, part: Part) -> Needed:
        """The memory of one part."""
        return self._needed(part.layers)

    def _needed(self, layers: LayerRange) -> Needed:
        tokens, step = self.work.session_tokens, self.work.chunk_tokens
        return self.sizes.needed(layers, session_tokens=tokens, step_tokens=step)

    @property
    def is_alone_better(self) -> bool:
        """Whether one machine, perhaps with smaller weights, makes at least as many tokens."""
        if self.alone is None:
            return False
        return self.split is None or self.alone.speed.tokens_per_s >= self.split.tokens_per_s


def make_plan(
    sizes: Mapping[str, ModelSizes], quant: str, machines: Sequence[Machine], ways: Ways, work: Work
) -> Plan:
    """Plan for a model; raises BadRequest.

    sizes: by quantisation; that which is asked for and the smaller ones that the model can have
    """
    asked = sizes[quant]
    if not 0 < len(machines) <= MAX_MACHINES:
        raise BadRequest(f"a plan is for 1 to {MAX_MACHINES} machines, not {len(machines)}")
    if work.context_tokens > asked.max_positions:
        raise BadRequest(f"context {work.context_tokens}: it holds {asked.max_positions} tokens")
    compute = Compute(asked)
    splitter = Splitter(compute, ways, work)
    parts = splitter.split(machines) if len(machines) > 1 else ()
    split = chain_speed(compute, parts, ways, work) if parts else None
    alone = _alone(sizes, quant, machines, ways, work)
    speed, chosen = split, parts
    if alone is not None and alone.quant == quant:
        if split is None or alone.speed.tokens_per_s >= split.tokens_per_s:
            speed, chosen = alone.speed, (Part(alone.machine, asked.whole),)
    stages = even_parts(parts, len(asked.layers), NUM_STAGES) if parts else ()
    return Plan(
        sizes=asked,
        work=work,
        parts=chosen,
        speed=speed,
        split=split,
        alone=alone,
        tensor_parallel=tensor_parallel_speed(compute, parts, ways, work) if parts else None,
        ten_stages=chain_speed(compute, stages, ways, work) if stages else None,
        there_bytes=sum(machine.memory_bytes for machine in machines),
        smaller="" if chosen else _smaller(sizes, quant, machines, ways, work),
    )


def _alone(
    sizes: Mapping[str, ModelSizes], quant: str, machines: Sequence[Machine], ways: Ways, work: Work
) -> Alone | None:
    """The fastest machine that holds the model in the largest form that fits one at all."""
    for form in (quant, *(each for each in sizes if each != quant)):
        compute = Compute(sizes[form])
        machine = Splitter(compute, ways, work).alone(machines)
        if machine is not None:
            speed = one_machine_speed(compute, machine, work)
            return Alone(machine=machine, speed=speed, quant=form)
    return None


def _smaller(
    sizes: Mapping[str, ModelSizes], quant: str, machines: Sequence[Machine], ways: Ways, work: Work
) -> str:
    """The first quantisation with which a model fits that does not as asked."""
    for form in (each for each in sizes if each != quant):
        splitter = Splitter(Compute(sizes[form]), ways, work)
        if splitter.alone(machines) or splitter.split(machines):
            return form
    return ""


# --- what it costs


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What is paid for; money is in whatever it was given in."""

    watts: float | None = None
    """Of one machine while it serves; None: not known, as for the others."""
    price_kwh: float | None = None
    cloud_price: float | None = None
    """What a cloud asks for a million tokens."""

    def __post_init__(self) -> None:
        for name in ("watts", "price_kwh", "cloud_price"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1e9:
                raise BadRequest(f"{name} must be 0 to 1e9, not {value:g}")

    def per_million_tokens(self, num_machines: int, tokens_per_s: float) -> float:
        """Electricity for a million tokens."""
        hours = 1e6 / tokens_per_s / 3600.0
        return num_machines * (self.watts or 0.0) / 1e3 * hours * (self.price_kwh or 0.0)
