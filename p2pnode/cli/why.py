"""Why a chain was chosen: for people a small table, for scripts the terms of the sum."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from p2pnode.cli.output import Output
from p2pnode.routing.chain import Choice
from p2pnode.routing.explain import Explanation
from p2pnode.routing.terms import Terms

COLUMNS = (
    "ms per token",
    "waits",
    "computes",
    "way",
    "uplink",
    "correction",
    "risk",
    "draw",
    "sum",
)
ROUND = "The last one hands each token to the first: that way is the first one's."
MEANING = """\
waits: for the device; way: half a round trip from the one before; uplink: the bytes on the uplink
of the one before; correction: what measured steps took more than predicted; risk: what its failures
may cost, and what there is to do once per answer; draw: a small random part, so that not everybody
takes the same peers.
"""


def show_explanation(output: Output, explanation: Explanation) -> None:
    """The choice and the runners-up."""
    output.event("explain", **explanation_fields(explanation))
    chosen = explanation.chosen
    rows = [
        (f"{hop.peer.short} {hop.layers}", *_cells(terms))
        for hop, terms in zip(chosen.chain.hops, chosen.terms, strict=True)
    ]
    if not explanation.has_ring:
        rows.append(("and back", *_cells(Terms(way_s=chosen.return_s))))
    rows.append(("chosen", *_cells(_total(chosen))))
    rows += [(f"instead {other.chain}", *_cells(_total(other))) for other in explanation.others]
    output.table(COLUMNS, rows)
    if explanation.has_ring:
        output.say(ROUND)
    output.say(MEANING)


def explanation_fields(explanation: Explanation) -> dict[str, Any]:
    """The same for scripts, in seconds."""
    return {
        "chosen": _choice_fields(explanation.chosen),
        "others": [_choice_fields(other) for other in explanation.others],
        "num_peers": explanation.num_peers,
        "limit_s": explanation.limit_s,
        "has_ring": explanation.has_ring,
    }


def _choice_fields(choice: Choice) -> dict[str, Any]:
    hops = [
        {"peer": hop.peer, "layers": str(hop.layers), **asdict(terms), "total_s": terms.total_s}
        for hop, terms in zip(choice.chain.hops, choice.terms, strict=True)
    ]
    return {
        "hops": hops,
        "return_s": choice.return_s,
        "time_s": choice.time_s,
        "total_s": choice.total_s,
    }


def _total(choice: Choice) -> Terms:
    """All hops together, with the way back."""
    names = Terms.__dataclass_fields__
    sums = {name: sum(getattr(terms, name) for terms in choice.terms) for name in names}
    sums["way_s"] += choice.return_s
    return Terms(**sums)


def _cells(terms: Terms) -> tuple[str, ...]:
    return tuple(f"{seconds * 1e3:.1f}" for seconds in (*asdict(terms).values(), terms.total_s))
