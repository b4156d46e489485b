"""A plan on the command line: for people a few lines, for scripts one object."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from p2pnode.cli.output import Output
from p2pnode.log import escape
from p2pnode.numerics import Numerics
from p2pnode.plan.advice import advice
from p2pnode.plan.latency import Part, Speed
from p2pnode.plan.machine import Machine, Ways
from p2pnode.plan.plan import Plan, Prices
from p2pnode.types import ModelSpec


@dataclass(frozen=True, slots=True)
class Setting:
    """For what a plan is made, and where that is known from."""

    machines: tuple[Machine, ...]
    ways: Ways
    source: str
    """``vram``, ``this machine`` or ``swarm``."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A plan, and what it was made for."""

    plan: Plan
    spec: ModelSpec
    numerics: Numerics
    setting: Setting
    prices: Prices

    @property
    def cost(self) -> float | None:
        """Of a million tokens; None: nobody asked, or it does not fit."""
        if self.plan.speed is None or self.prices.watts is None:
            return None
        return self.prices.per_million_tokens(len(self.plan.parts), self.plan.speed.tokens_per_s)


def show(shown: Shown, output: Output) -> None:
    """Print it."""
    output.result(fields_of(shown))
    for line in _lines(shown):
        output.say(line)


def fields_of(shown: Shown) -> dict[str, Any]:
    """A plan as scripts see it."""
    plan, spec, setting = shown.plan, shown.spec, shown.setting
    sizes, work, whole = plan.sizes, plan.work, plan.whole
    return {
        "model": spec.name,
        "family": spec.family,
        "num_layers": spec.num_layers,
        "numerics": str(shown.numerics),
        "context_tokens": work.context_tokens,
        "batch": work.batch,
        "weights_bytes": whole.weights_bytes,
        "kv_bytes_per_token": sizes.kv_bytes_per_token(sizes.whole),
        "sessions_bytes": whole.sessions_bytes,
        "activation_bytes": whole.activation_bytes,
        "needed_bytes": whole.total_bytes,
        "ranges": [_range(plan, part) for part in plan.parts],
        "fits": plan.fits,
        "tokens_per_s": plan.speed.tokens_per_s if plan.speed else None,
        "ttft_s": plan.speed.ttft_s if plan.speed else None,
        "one_machine": _alone(plan),
        "split": _speed(plan.split),
        "tensor_parallel": _speed(plan.tensor_parallel),
        "ten_stages": _speed(plan.ten_stages),
        "cost_per_million_tokens": shown.cost,
        "cloud_price": shown.prices.cloud_price,
        "assumed": {
            "source": setting.source,
            "rtt_s": setting.ways.rtt_s,
            "up_bytes_per_s": setting.ways.up_bytes_per_s,
            "memory_bytes_per_s": [m.memory_bytes_per_s for m in setting.machines],
        },
        "advice": advice(plan),
    }


def _range(plan: Plan, part: Part) -> dict[str, Any]:
    needed = plan.needed(part)
    return {
        "layers": str(part.layers),
        "bytes": needed.total_bytes,
        "weights_bytes": needed.weights_bytes,
        "sessions_bytes": needed.sessions_bytes,
        "activation_bytes": needed.activation_bytes,
        "peer": part.machine.peer,
        "vram_bytes": part.machine.memory_bytes,
    }


def _alone(plan: Plan) -> dict[str, Any] | None:
    if plan.alone is None:
        return None
    machine, quant = plan.alone.machine, plan.alone.quant
    fields = {"peer": machine.peer, "vram_bytes": machine.memory_bytes, "quant": quant or None}
    return {**fields, **asdict(plan.alone.speed)}


def _speed(speed: Speed | None) -> dict[str, float] | None:
    return asdict(speed) if speed else None


def _lines(shown: Shown) -> Iterator[str]:
    """A plan for people."""
    plan, spec, work = shown.plan, shown.spec, shown.plan.work
    sizes, whole = plan.sizes, plan.whole
    sessions = f"{work.batch} session{'s' * (work.batch != 1)} of {work.context_tokens} tokens"
    yield f"{escape(spec.name, 80)}: {spec.num_layers} layers in {shown.numerics}, {sessions}"
    yield f"  weights        {gb(whole.weights_bytes)}"
    kv = f"{sizes.kv_bytes_per_token(sizes.whole) / 1e3:.1f} kB of KV per token"
    yield f"  sessions       {gb(whole.sessions_bytes)}, {kv}"
    yield f"  activations    {gb(whole.activation_bytes)}"
    yield f"  in one place   {gb(whole.total_bytes)}, what is kept free beside sessions included"
    for part in plan.parts:
        used = f"{gb(plan.needed(part).total_bytes)} of {gb(part.machine.memory_bytes)}"
        yield f"  layers {part.layers!s:7} {used}, {escape(part.machine.name, 80)}"
    for name, speed in _arrangements(plan):
        first = f"first token after {speed.ttft_s:.2g} s"
        yield f"  {name:28} {speed.tokens_per_s:8.3g} tokens/s, {first}"
    if shown.cost is not None:
        yield f"  electricity    {_price(shown.cost, shown.prices)}"
    yield f"  assumed        {_assumed(shown.setting)}"
    yield f"advice: {escape(advice(plan), 500)}"


def _arrangements(plan: Plan) -> Iterator[tuple[str, Speed]]:
    if plan.alone is not None:
        quant = plan.alone.quant
        yield f"one machine, --quant {quant}" if quant else "one machine", plan.alone.speed
    if plan.split is not None:
        yield "the best split", plan.split
    if plan.ten_stages is not None:
        yield "ten stages", plan.ten_stages
    if plan.tensor_parallel is not None:
        yield "tensor parallel", plan.tensor_parallel


def _price(cost: float, prices: Prices) -> str:
    text = f"{cost:.3g} per million tokens"
    return text if prices.cloud_price is None else f"{text}; a cloud asks {prices.cloud_price:g}"


def _assumed(setting: Setting) -> str:
    ways = setting.ways
    speeds = [machine.memory_bytes_per_s / 1e9 for machine in setting.machines]
    low, high = f"{min(speeds):.3g}", f"{max(speeds):.3g}"
    memory = low if low == high else f"{low} to {high}"
    network = f"RTT {ways.rtt_s * 1e3:.3g} ms, uplinks of {ways.up_bytes_per_s * 8e-6:.3g} Mbit/s"
    return f"{network}, memory of {memory} GB/s; no guessing ahead"


def gb(num_bytes: float) -> str:
    """For people."""
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes < 1e10 else f"{num_bytes / 1e9:.1f} GB"
