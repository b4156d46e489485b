"""What a hop says about a session: results, progress, faults."""

from __future__ import annotations

from typing import Any

from p2pnode.serving.job import Output
from p2pnode.serving.session import HopSession
from p2pnode.types import PeerId
from p2pnode.wire import logprobs
from p2pnode.wire.messages import Closed, Fault, Progress, Reroute, Result, Step


def result(session: HopSession, output: Output) -> Result:
    """The answer of the last hop."""
    return Result(
        session=session.id,
        layer=session.layers.start,
        epoch=session.epoch,
        branch=session.branch,
        position=output.position,
        token_ids=output.token_ids,
        hidden=output.hidden,
        logprobs=logprobs.pack(output.chosen),
    )


def carried(session: HopSession, step: Step) -> Result:
    """A step for the next hop that only our client can reach."""
    return Result(
        session=session.id,
        layer=session.layers.start,
        epoch=step.epoch,
        branch=step.branch,
        position=step.position,
        token_ids=(),
        hidden=step.entry,
    )


def progress(session: HopSession) -> Progress:
    """How far we are, cumulative."""
    return Progress(
        session=session.id,
        layer=session.layers.start,
        epoch=session.epoch,
        branch=session.branch,
        position=session.position,
        replays_from=session.replays_from,
        **_cost(session),
    )


def closed(session: HopSession) -> Closed:
    """The last word to the client."""
    return Closed(
        session=session.id,
        layer=session.layers.start,
        **_cost(session),
    )


def fault(session: HopSession, kind: str, detail: str, blamed: PeerId | None = None) -> Fault:
    """Why we cannot go on."""
    return Fault(
        session=session.id,
        layer=session.layers.start,
        epoch=session.epoch,
        fault=kind,
        blamed=blamed,
        detail=detail[:500],
    )


def unknown(message: Step | Reroute) -> Fault:
    """The answer about a session that is not ours, or no longer."""
    return Fault(
        session=message.session,
        layer=message.layer,
        epoch=message.epoch,
        fault="unknown",
        blamed=None,
        detail="no such session here",
    )


def _cost(session: HopSession) -> dict[str, Any]:
    """What it has cost us so far, as `Progress` and `Closed` tell it."""
    return {
        "num_steps": session.num_steps,
        "queue_s": session.queue_s,
        "compute_s": session.compute_s,
    }
