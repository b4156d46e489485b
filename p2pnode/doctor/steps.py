"""From what hops tell of their steps to each hop's times. Pure.

A hop says after each step how far it is and what the session has cost it (`Progress`). That word
takes half a round trip to us, so we know when it was ready; what lies between the moments of two
neighbours is the way, the wait and the computation of the later one, and it tells the last two.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from p2pnode.doctor.measured import ChainMeasured, HopMeasured
from p2pnode.types import Chain, Hop, PeerId

MAX_HEARD = 1024
MAX_HOPS = 256

HopKey = tuple[PeerId, int]
"""A peer, and the first layer of its hop."""


@dataclass(frozen=True, slots=True)
class Heard:
    """One word of a hop, and when it came."""

    at: float
    position: int
    num_steps: int
    queue_s: float
    """A sum over the session; so is ``compute_s``."""
    compute_s: float


@dataclass(slots=True)
class Round:
    """One session of the probe: a prompt, and some tokens."""

    prompt_tokens: int
    began_at: float
    chain: Chain | None = None
    """As it was at the end; None: there was none."""
    token_at: list[float] = field(default_factory=list)
    heard: dict[HopKey, list[Heard]] = field(default_factory=dict)

    def note(self, key: HopKey, heard: Heard) -> None:
        """A hop has said how far it is; of one that says too much, the rest is not kept."""
        if key not in self.heard and len(self.heard) >= MAX_HOPS:
            return
        said = self.heard.setdefault(key, [])
        if len(said) < MAX_HEARD:
            said.append(heard)

    @property
    def last_sign_at(self) -> float:
        """When anything came."""
        heard = [said[-1].at for said in self.heard.values()]
        return max([self.began_at, *self.token_at[-1:], *heard])

    def of(self, hop: Hop) -> list[Heard]:
        """All that a hop has said."""
        return self.heard.get((hop.peer, hop.layers.start), [])

    def until_first(self) -> float | None:
        """From the prompt to the first token."""
        return self.token_at[0] - self.began_at if self.token_at else None

    def between(self) -> list[float]:
        """The times between tokens."""
        return [b - a for a, b in pairwise(self.token_at)]


def chain_of(
    rounds: Sequence[Round],
    connected: Mapping[PeerId, HopMeasured],
    *,
    cut_at: float | None = None,
) -> ChainMeasured | None:
    """What the rounds say of the chain of the last one; None when there was no chain.

    connected: what is known of peers without sessions: how long it took to reach them, round trips
    cut_at: when the last round was cut short because time was over; None: it was not
    """
    last = next((each for each in reversed(rounds) if each.chain is not None), None)
    if last is None or last.chain is None:
        return None
    same = [each for each in rounds if each.chain == last.chain]
    hops = last.chain.hops
    blank = [
        connected.get(hop.peer) or HopMeasured(peer=hop.peer, layers=hop.layers) for hop in hops
    ]
    half_s = [(each.ways.median_s or 0.0) / 2.0 for each in blank]
    measured = [
        _hop(same, hops, index, half_s, replace(each, layers=hop.layers, is_carried=hop.is_carried))
        for index, (hop, each) in enumerate(zip(hops, blank, strict=True))
    ]
    between = [seconds for each in same for seconds in each.between()]
    return ChainMeasured(
        hops=tuple(measured),
        num_tokens=sum(len(each.token_at) for each in same),
        ttft_s=min((s for each in same if (s := each.until_first()) is not None), default=None),
        token_s=_median(between),
        awaited=None if cut_at is None else _awaited(last, hops),
        waited_s=0.0 if cut_at is None else cut_at - last.last_sign_at,
    )


def _hop(
    rounds: Sequence[Round],
    hops: Sequence[Hop],
    index: int,
    half_s: Sequence[float],
    blank: HopMeasured,
) -> HopMeasured:
    """The times of one hop over all rounds."""
    steps = [step for each in rounds for step in _steps(each, hops[index])]
    ways = [way for each in rounds for way in _ways(each, hops, index, half_s)]
    way_s = _median(ways)
    moves = [_move_s(each, hops, index, half_s) for each in rounds] if index else []
    known = [move_s - (way_s or 0.0) for move_s in moves if move_s is not None]
    told = rounds[-1].of(hops[index])
    return replace(
        blank,
        queue_s=_median(queue_s for queue_s, _ in steps),
        compute_s=_median(compute_s for _, compute_s in steps),
        way_s=way_s,
        transfer_s=max(0.0, min(known)) if known else None,
        prompt_s=told[-1].queue_s + told[-1].compute_s if told else 0.0,
    )


def _steps(each: Round, hop: Hop) -> list[tuple[float, float]]:
    """(wait, computation) of the decode steps of a hop; several told at once count as one."""
    found = []
    told = [heard for heard in each.of(hop) if heard.position >= each.prompt_tokens]
    for before, after in pairwise(told):
        num_steps = after.num_steps - before.num_steps
        if num_steps > 0:
            queue_s = (after.queue_s - before.queue_s) / num_steps
            found.append((queue_s, (after.compute_s - before.compute_s) / num_steps))
    return found


def _ways(each: Round, hops: Sequence[Hop], index: int, half_s: Sequence[float]) -> list[float]:
    """The way to a hop, of each decode step that both it and the hop before have told of alone.

    Before the first hop is the last one.
    """
    arrived = _ready_at(each, hops[index], half_s[index])
    before = _ready_at(each, hops[index - 1], half_s[index - 1])
    # The first hop gets a token from the last one, which has made it.
    left = {position + (not index): at for position, (at, _) in before.items()}
    return [
        max(0.0, at - left[position] - spent_s)
        for position, (at, spent_s) in arrived.items()
        if position in left
    ]


def _ready_at(each: Round, hop: Hop, half_s: float) -> dict[int, tuple[float, float]]:
    """By position: when a hop was ready with a decode step, and what it spent on that step."""
    told, ready = each.of(hop), {}
    for before, after in pairwise(told):
        if before.position >= each.prompt_tokens and after.num_steps == before.num_steps + 1:
            spent_s = after.queue_s - before.queue_s + after.compute_s - before.compute_s
            ready[after.position] = (after.at - half_s, spent_s)
    return ready


def _move_s(each: Round, hops: Sequence[Hop], index: int, half_s: Sequence[float]) -> float | None:
    """From when the hop before had all of the prompt to when this one has, less its own work."""
    ours, theirs = (_prompt_done(each, hops[at]) for at in (index, index - 1))
    if ours is None or theirs is None:
        return None
    took_s = (ours.at - half_s[index]) - (theirs.at - half_s[index - 1])
    return took_s - ours.queue_s - ours.compute_s


def _prompt_done(each: Round, hop: Hop) -> Heard | None:
    return next((heard for heard in each.of(hop) if heard.position >= each.prompt_tokens), None)


def _awaited(last: Round, hops: Sequence[Hop]) -> PeerId:
    """The first hop that has not done what the last token needs."""
    due = last.prompt_tokens + len(last.token_at)
    done = [max((heard.position for heard in last.of(hop)), default=0) for hop in hops]
    behind = (hop for hop, position in zip(hops, done, strict=True) if position < due)
    return next(behind, hops[-1]).peer


def _median(values: Iterable[float]) -> float | None:
    known = list(values)
    return statistics.median(known) if known else None
