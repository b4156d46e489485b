"""What we advise, in one sentence or two."""

from __future__ import annotations

from p2pnode.plan.plan import Alone, Plan


def advice(plan: Plan) -> str:
    """Whether to split the model at all, and what to do when it does not fit."""
    if plan.alone is not None and plan.is_alone_better:
        return _one_machine(plan.alone, plan)
    if not plan.fits:
        return _no_room(plan)
    rate = plan.speed.tokens_per_s if plan.speed else 0.0
    text = f"split it over {len(plan.parts)} machines: {rate:.3g} tokens/s"
    one = plan.alone
    if one is None:
        return f"{text}; no machine holds it alone"
    return f"{text}; {_place(one)} alone makes {one.speed.tokens_per_s:.3g}"


def _one_machine(one: Alone, plan: Plan) -> str:
    text = f"run it on one machine: {_place(one)} makes {one.speed.tokens_per_s:.3g} tokens/s"
    if plan.split is None:
        return f"{text}, without a network"
    return f"{text}, the best split {plan.split.tokens_per_s:.3g}"


def _place(one: Alone) -> str:
    name = one.machine.name
    return f"{name} with --quant {one.quant}" if one.quant else name


def _no_room(plan: Plan) -> str:
    needed, there = plan.whole.total_bytes / 1e9, plan.there_bytes / 1e9
    text = f"it does not fit: {needed:.1f} GB in one place, more when split; there are {there:.1f}"
    if plan.smaller:
        return f"{text}; take --quant {plan.smaller}"
    return f"{text}; add machines, or take a shorter --context or a smaller --batch"
