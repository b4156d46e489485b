"""Scenarios in TOML, read strictly: `load_scenario` for a file, `read_scenario` for its text.

Every error is one BadRequest of one line with the file, the key, and what to write instead.
"""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

from p2pnode.errors import BadRequest
from p2pnode.lab.presets import PRESETS, Link
from p2pnode.lab.scenario import (
    CLIENT,
    DEADLY,
    Fault,
    FaultKind,
    Moment,
    Nat,
    Node,
    Request,
    Scenario,
    Where,
)
from p2pnode.lab.table import Table, read_text
from p2pnode.log import escape
from p2pnode.types import LayerRange

MAX_NODES = 64
MAX_FAULTS = 64
MAX_WAYS = 1024
MAX_TOKENS = 4096
MAX_SEED = (1 << 63) - 1
DAY_S = 86_400.0


def load_scenario(file: Path) -> Scenario:
    """Read a file; its name without ``.toml`` is the name of a scenario that says none."""
    return read_scenario(read_text(file), escape(str(file)), default_name=file.stem)


def read_scenario(text: str, source: str, default_name: str = "scenario") -> Scenario:
    """Read what a file holds. source: how errors name it."""
    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        reason = escape(" ".join(str(error).split()), 200)
        raise BadRequest(f"{source} is not TOML: {reason}; mend that line") from None
    top = Table(values, source)
    scenario = Scenario(
        name=top.text("name", default_name or "scenario"),
        seed=top.integer("seed", 0, MAX_SEED, 0),
        model=top.text("model", "tiny"),
        standby=top.flag("standby", default=True),
        nodes=tuple(_node(each) for each in top.tables("nodes", MAX_NODES)),
        client=_request(top.table("client")),
        link=_link(top.table("links"), "between"),
        ways=_ways(top.table("links")),
        faults=tuple(_fault(each) for each in top.tables("faults", MAX_FAULTS)),
    )
    top.done()
    _check(top, scenario)
    return scenario


def _node(table: Table) -> Node:
    try:
        layers = LayerRange.parse(table.text("layers"))
    except ValueError:
        raise table.wrong("layers", 'write the first and the last one, e.g. "0-2"') from None
    node = Node(
        name=table.name("name"),
        layers=layers,
        count=table.integer("count", 1, MAX_NODES, 1),
        link=_named_link(table),
        nat=Nat(table.choice("nat", tuple(Nat), Nat.NONE)),
        clock_offset_s=table.number("clock_offset_s", -DAY_S, DAY_S, 0.0),
        compute_ms=table.number("compute_ms", 0.0, 60_000.0, 0.0),
    )
    table.done()
    return node


def _request(table: Table) -> Request:
    if table.has("prompt") and table.has("prompt_tokens"):
        raise table.wrong("prompt_tokens", "write a prompt or prompt_tokens, not both")
    has_text, has_count = table.has("prompt"), table.has("prompt_tokens")
    request = Request(
        prompt=table.text("prompt") if has_text else None,
        prompt_tokens=table.integer("prompt_tokens", 1, MAX_TOKENS) if has_count else None,
        max_tokens=table.integer("max_tokens", 1, MAX_TOKENS, 32),
        temperature=table.number("temperature", 0.0, 100.0, 0.0),
        seed=table.integer("seed", 0, MAX_SEED, 0),
        link=_named_link(table),
    )
    table.done()
    return request


def _named_link(table: Table) -> Link | None:
    if not table.has("link"):
        return None
    return PRESETS[table.choice("link", tuple(PRESETS))]


def _link(table: Table, *others: str) -> Link:
    """A preset, with whatever is said beside it; ``others`` are keys that are read elsewhere."""
    for key in others:
        table.has(key)
    link = PRESETS[table.choice("preset", tuple(PRESETS), "lan")]
    link = dataclasses.replace(
        link,
        delay_ms=table.number("delay_ms", 0.0, 60_000.0, link.delay_ms),
        jitter=table.number("jitter", 0.0, 1.0, link.jitter),
        loss=table.number("loss", 0.0, 0.99, link.loss),
        up_mbit=table.number("up_mbit", 0.001, 1e6, link.up_mbit),
        down_mbit=table.number("down_mbit", 0.001, 1e6, link.down_mbit),
    )
    table.done()
    return link


def _ways(table: Table) -> dict[tuple[str, str], Link]:
    ways: dict[tuple[str, str], Link] = {}
    for each in table.tables("between", MAX_WAYS):
        first, second = each.texts("pair", 2)
        if (first, second) in ways or (second, first) in ways or first == second:
            raise each.wrong("pair", "write two different names, and each pair once")
        ways[first, second] = _link(each, "pair")
    return ways


def _fault(table: Table) -> Fault:
    kind = FaultKind(table.choice("kind", tuple(FaultKind)))
    has_node, has_hop = table.has("node"), table.has("hop")
    if has_node == has_hop:
        raise table.wrong("node" if has_node else "hop", "write either node or hop")
    fault = Fault(
        kind=kind,
        at=_moment(table),
        node=table.text("node") if has_node else None,
        hop=table.integer("hop", 0, MAX_NODES) if has_hop else None,
        for_s=table.number("for_s", 0.001, DAY_S) if table.has("for_s") else None,
        offset_s=table.number("offset_s", -DAY_S, DAY_S, 300.0),
        steps=table.integer("steps", 1, 1_000_000, 1),
    )
    _check_fault(table, fault)
    table.done()
    return fault


def _check_fault(table: Table, fault: Fault) -> None:
    if table.has("offset_s") and fault.kind is not FaultKind.CLOCK:
        raise table.wrong("offset_s", 'it belongs to kind = "clock"')
    if table.has("steps") and fault.kind is not FaultKind.OOM:
        raise table.wrong("steps", 'it belongs to kind = "oom"')
    if fault.for_s is not None and fault.kind in DEADLY:
        raise table.wrong("for_s", f"a {fault.kind} does not end; leave it away")


def _moment(table: Table) -> Moment:
    keys = ("token", "prefill", "in_flight")
    named = [key for key in keys if table.has(key)]
    if len(named) != 1:
        remedy = "write one of token = N, in_flight = N, prefill = true"
        raise table.wrong(named[1] if named else "token", remedy)
    if named == ["prefill"]:
        if not table.flag("prefill", default=True):
            raise table.wrong("prefill", "write true, or another moment")
        return Moment(where=Where.PREFILL)
    where = Where.DECODE if named == ["token"] else Where.IN_FLIGHT
    return Moment(where=where, token=table.integer(named[0], 1, MAX_TOKENS))


# --- what single tables cannot know


def _check(top: Table, scenario: Scenario) -> None:
    names = [name for node in scenario.nodes for name in node.members]
    if not names:
        raise top.wrong("nodes", "write at least one [[nodes]] with name and layers")
    if len(names) > MAX_NODES:
        raise top.wrong("nodes", f"write at most {MAX_NODES}, counts included")
    groups = [node.name for node in scenario.nodes if node.count > 1]
    known = [*names, *groups, CLIENT]
    twice = next((name for name in known if known.count(name) > 1), None)
    if twice is not None:
        raise top.wrong("nodes", f"give each a name of its own: {escape(twice, 40)} is taken")
    for pair in scenario.ways:
        for name in pair:
            if name not in known:
                raise top.wrong("links", _unknown(name, known))
    for fault in scenario.faults:
        if fault.node is not None and fault.node not in names:
            raise top.wrong("faults", _unknown(fault.node, names))
        if fault.at.token >= scenario.client.max_tokens:
            remedy = f"token and in_flight must be below max_tokens = {scenario.client.max_tokens}"
            raise top.wrong("faults", remedy)


def _unknown(name: str, known: list[str]) -> str:
    return f"there is no {escape(name, 40)!r}; the nodes are {', '.join(known)}"
