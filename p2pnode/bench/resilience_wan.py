"""Sessions on real processes in network namespaces (Linux)."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from p2pnode.bench.resilience_sessions import HANGS_AFTER_S, Session, Turn
from p2pnode.lab.reference import prepare
from p2pnode.lab.scenario import CLIENT, Scenario
from p2pnode.lab.wan.client import WanClient
from p2pnode.lab.wan.machines import Machine
from p2pnode.lab.wan.runner import WanLab, request_of
from p2pnode.lab.wan.worker import Generate, Join

FAILED_HOP = "hop failed"
LEAVES_WITHIN_S = 60.0


class SessionLab(WanLab):
    """A lab whose nodes can also be asked to leave, and whose clients differ in standbys."""

    async def session(self, scenario: Scenario, turn: Turn) -> Session:
        """One generation by a new client; whoever has left or died is there again afterwards."""
        task = await asyncio.to_thread(prepare, scenario, self._cache)
        # Whether there are standbys is the client's business: the swarm can stay.
        swarm = await self._prepared(replace(scenario, standby=True), task)
        model = None if scenario.model == "builtin" else str(task.folder)
        join = Join(join=(), home="", model=model, standby=turn.standby)
        client = await swarm.client(CLIENT, join)
        session = Session(task.expected, time.monotonic())
        try:
            async with asyncio.timeout(HANGS_AFTER_S):
                await _follow(client, request_of(task), swarm.machines, session, turn)
        except TimeoutError:
            session.error = f"no end after {HANGS_AFTER_S:g} s"
        await swarm.close_client(client)
        for machine in list(swarm.machines.values()):
            if turn.deed == "leave" and machine.peer in session.peers_at_deed:
                await _left(machine)
            if not machine.is_ready:
                await swarm.revive(machine)
        return session


async def _follow(
    client: WanClient,
    request: Generate,
    machines: Mapping[str, Machine],
    session: Session,
    turn: Turn,
) -> None:
    by_peer = {machine.peer: machine for machine in machines.values()}
    async with aclosing(client.generate(request)) as events:
        async for event in events:
            _note(event, session)
            is_due = event["event"] == "token" and len(session.token_ids) == turn.token
            if is_due and turn.deed and session.peers:
                session.deed_at_s = time.monotonic()
                session.peers_at_deed = (session.peers[turn.hop],)
                _do(turn, by_peer[session.peers[turn.hop]])


def _note(event: dict[str, Any], session: Session) -> None:
    match event["event"]:
        case "token":
            session.token_ids.append(event["token_id"])
            session.token_times_s.append(event["at_s"])
        case "chain":
            session.peers = tuple(hop["peer"] for hop in event["hops"])
        case "trouble" if event["what"] == FAILED_HOP:
            session.failures_s.append(event["at_s"])
        case "failed":
            session.error = f"{event['kind']}: {event['message']}"


def _do(turn: Turn, machine: Machine) -> None:
    if turn.deed == "leave":
        machine.send(signal.SIGTERM, daemon=False)
    else:
        machine.send(signal.SIGKILL)


async def _left(machine: Machine) -> None:
    """Return when a node that was asked to leave has ended; raises TimeoutError."""
    if machine.program is not None:
        async with asyncio.timeout(LEAVES_WITHIN_S):
            await machine.program.ended.wait()
