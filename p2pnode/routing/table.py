"""The costs of peers and of the ways between them, as arrays: what the search adds up.

A token's time in a chain is, per hop: waiting for the device, compute, half a round trip from the
hop before and the bytes on that hop's uplink; and at the end the way back to the client. In a ring
the hop before the first one is the last one, and the ways of the client count once per answer. What
may go wrong, and the load that nobody can know yet, are added to the sum as if they were time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from p2pnode.numerics import Numerics
from p2pnode.routing.needs import Draw, Needs
from p2pnode.routing.steps import step_s
from p2pnode.routing.terms import (
    Floats,
    Indexes,
    Terms,
    anew_s,
    extras_s,
    queues_s,
    risks_s,
    sane_s,
)
from p2pnode.types import (
    Announcement,
    Coordinate,
    LayerRange,
    PeerId,
    SwarmView,
)

UNKNOWN_RTT_S = 0.03
CARRIED_COST_S = 1.0
"""What it costs besides to go through the client: its uplink, and it must stay."""
UNSURE_FROM = 0.5
"""Coordinates with a smaller error are believed, with an error of 1 not at all."""
ANSWER_TOKENS = 64
"""Of a usual answer: so many of them share the client's ways, in a ring."""
SPREAD_SHARE = 0.5
"""Up to how much of its step time a draw adds: sessions that others begin right now."""


@dataclass(frozen=True, slots=True)
class Table:
    """The peers of one numerics class; each array has one element per peer."""

    peers: tuple[Announcement, ...]
    needs: Needs
    start: Indexes
    stop: Indexes
    layer_s: Floats
    """Compute time of one layer."""
    queue_s: Floats
    extra_s: Floats
    """What every measured way to it had in common, so that it must be the peer."""
    risk_s: Floats
    spread_s: Floats
    client_rtt_s: Floats
    is_measured: NDArray[np.bool_]
    """Whether the round trip to the client was."""
    places: Floats
    """[peers, 3]"""
    heights_s: Floats
    trust: Floats
    """How much its coordinate is believed, 0 to 1."""
    send_s: Floats
    """A token's hidden state on its uplink; 0 when that is not known."""

    @classmethod
    def of(
        cls,
        view: SwarmView,
        peers: Sequence[Announcement],
        needs: Needs,
        numerics: str,
        rng: Draw | None,
    ) -> Self:
        """Read announcements, health and experience once; ``rng`` draws the spread."""
        known = [view.health.get(a.peer) for a in peers]
        told = [each.health if each else None for each in known]
        block_s = [step_s(a, h, needs.step_tokens) for a, h in zip(peers, told, strict=True)]
        coordinates = [h.coordinate if h else Coordinate() for h in told]
        row_bytes = Numerics.parse(numerics).row_bytes(needs.hidden_size)
        row_bytes *= needs.step_tokens
        lengths = np.array([len(a.layers) for a in peers], dtype=np.float64)
        measured = _rtts(peers, needs)
        places, heights_s, trust = _places(coordinates)
        is_measured = ~np.isnan(measured)
        away_s = _from_here(needs.coordinate, places, heights_s, trust)
        draws = [rng.random() for _ in peers] if rng else [0.0] * len(peers)
        return cls(
            peers=tuple(peers),
            needs=needs,
            start=np.array([a.layers.start for a in peers], dtype=np.intp),
            stop=np.array([a.layers.stop for a in peers], dtype=np.intp),
            layer_s=sane_s(np.array(block_s, dtype=np.float64)) / lengths,
            queue_s=sane_s(queues_s(peers, told, block_s, needs)),
            extra_s=extras_s(peers, needs),
            risk_s=risks_s(peers, known, needs) + anew_s(peers, told, needs),
            spread_s=np.array(draws) * SPREAD_SHARE * sane_s(np.array(block_s, dtype=np.float64)),
            client_rtt_s=np.where(is_measured, measured, away_s),
            is_measured=is_measured,
            places=places,
            heights_s=heights_s,
            trust=trust,
            send_s=np.array(
                [row_bytes / a.up_bytes_per_s if a.up_bytes_per_s > 0 else 0.0 for a in peers]
            ),
        )

    @property
    def fixed_s(self) -> Floats:
        """What a hop costs besides its layers and the way to it."""
        return self.queue_s + self.extra_s + self.risk_s + self.spread_s

    def only(self, kept: Indexes) -> Table:
        """The same table with those peers alone."""
        arrays: dict[str, Any] = {name: getattr(self, name)[kept] for name in ARRAYS}
        peers = tuple(self.peers[index] for index in kept.tolist())
        return Table(peers=peers, needs=self.needs, **arrays)

    def with_peer(self, other: Table, peer: PeerId) -> Table:
        """The same table and, as its last, a peer of another one."""
        added = other.only(np.array([other.index(peer)]))
        arrays: dict[str, Any] = {
            name: np.concatenate((getattr(self, name), getattr(added, name))) for name in ARRAYS
        }
        return Table(peers=(*self.peers, *added.peers), needs=self.needs, **arrays)

    def index(self, peer: PeerId) -> int:
        """Where that peer is in the table; it must be there."""
        return next(i for i, a in enumerate(self.peers) if a.peer == peer)

    def rtt_s(self, rows: Indexes, columns: Indexes) -> Floats:
        """[rows, columns]: the predicted round trips between peers.

        By coordinates as far as they are believed. Where we have measured the way to both, their
        distance lies between the difference and the sum of these (the triangle inequality).
        """
        ours, theirs = self.places[rows], self.places[columns]
        square = (ours**2).sum(1)[:, None] + (theirs**2).sum(1)[None, :] - 2.0 * ours @ theirs.T
        away_s: Floats = np.sqrt(np.maximum(square, 0.0))
        away_s += self.heights_s[rows][:, None] + self.heights_s[columns][None, :]
        trust = np.minimum(self.trust[rows][:, None], self.trust[columns][None, :])
        away_s = trust * away_s + (1.0 - trust) * UNKNOWN_RTT_S
        there, here = self.client_rtt_s[rows][:, None], self.client_rtt_s[columns][None, :]
        bounded = np.clip(away_s, np.abs(there - here), there + here)
        both = self.is_measured[rows][:, None] & self.is_measured[columns][None, :]
        away_s[both] = bounded[both]
        return away_s

    def ways_s(self, rows: Indexes, columns: Indexes, *, is_handed: bool = False) -> Floats:
        """[rows, columns]: from each peer to each other one; infinite to itself.

        Where the one cannot reach the other, by way of the client.
        is_handed: in a ring, the way of a token from a last hop to a first one, who may be the same
        """
        sent_s = 0.0 if is_handed else self.send_s[rows][:, None]
        way_s: Floats = self.rtt_s(rows, columns) / 2.0 + sent_s
        way_s[rows[:, None] == columns[None, :]] = 0.0 if is_handed else np.inf
        if not self.needs.measured_s and not self.needs.avoid.links:
            return way_s
        row_of = {self.peers[index].peer: at for at, index in enumerate(rows.tolist())}
        column_of = {self.peers[index].peer: at for at, index in enumerate(columns.tolist())}
        for (before, peer), excess_s in self.needs.measured_s.items():
            if before in row_of and peer in column_of:
                at = (row_of[before], column_of[peer])
                own_s = excess_s - self.extra_s[columns[at[1]]]
                way_s[at] = max(0.0, way_s[at] + own_s)
        for before, peer in self.needs.avoid.links:
            if before in row_of and peer in column_of:
                row, column = row_of[before], column_of[peer]
                around_s = self.client_rtt_s[rows[row]] + self.client_rtt_s[columns[column]]
                way_s[row, column] = around_s / 2.0 + (0.0 if is_handed else CARRIED_COST_S)
        return way_s

    def first_way_s(self, index: int) -> float:
        """From the client to a peer."""
        excess_s = self.needs.measured_s.get((None, self.peers[index].peer))
        own_s = 0.0 if excess_s is None else excess_s - float(self.extra_s[index])
        return max(0.0, float(self.client_rtt_s[index]) / 2.0 + own_s)

    def last_way_s(self) -> Floats:
        """From each peer back to the client; with a local head it brings hidden states."""
        brings_s = self.send_s if self.needs.local_head else np.zeros_like(self.send_s)
        return self.client_rtt_s / 2.0 + brings_s

    def terms(
        self, index: int, layers: LayerRange, before: int | None, *, is_handed: bool = False
    ) -> Terms:
        """What that hop adds, after that other peer of the table (None: the client).

        is_handed: it is the first hop of a ring, and ``before`` the last one
        """
        way_s, transfer_s, with_all_s = self._way(index, before, is_handed=is_handed)
        pair = None if before is None else (self.peers[before].peer, self.peers[index].peer)
        is_carried = pair in self.needs.avoid.links and not is_handed
        # What it costs to be carried speaks against a chain; it is no time that a token takes.
        carried_s = CARRIED_COST_S if is_carried else 0.0
        once_s = 0.0
        if is_handed and before is not None:
            once_s = (self.first_way_s(index) + self.last_way_s()[before].item()) / ANSWER_TOKENS
        return Terms(
            queue_s=float(self.queue_s[index]),
            compute_s=float(self.layer_s[index]) * len(layers),
            way_s=way_s,
            transfer_s=transfer_s,
            measured_s=with_all_s - carried_s - way_s - transfer_s + float(self.extra_s[index]),
            risk_s=float(self.risk_s[index]) + carried_s + once_s,
            spread_s=float(self.spread_s[index]),
        )

    def _way(
        self, index: int, before: int | None, *, is_handed: bool
    ) -> tuple[float, float, float]:
        """To a hop: (half the round trip, the bytes, both as corrected by what was measured)."""
        if before is None:
            return float(self.client_rtt_s[index]) / 2.0, 0.0, self.first_way_s(index)
        rows, here = np.array([before]), np.array([index])
        with_all_s = self.ways_s(rows, here, is_handed=is_handed).item()
        if is_handed:
            way_s = 0.0 if before == index else self.rtt_s(rows, here).item() / 2.0
            return way_s, 0.0, with_all_s
        return self.rtt_s(rows, here).item() / 2.0, float(self.send_s[before]), with_all_s


ARRAYS = tuple(name for name in Table.__dataclass_fields__ if name not in ("peers", "needs"))
"""The fields of a table that have one element per peer."""


def _rtts(peers: Sequence[Announcement], needs: Needs) -> Floats:
    """Those measured from here; NaN for the others."""
    return np.array([needs.rtts_s.get(a.peer, np.nan) for a in peers], dtype=np.float64)


def _places(coordinates: Sequence[Coordinate]) -> tuple[Floats, Floats, Floats]:
    """([peers, 3] places, heights, how much each is believed); one that cannot be is unknown."""
    places = np.array([c.place for c in coordinates], dtype=np.float64).reshape(-1, 3)
    heights_s = np.array([c.height_s for c in coordinates], dtype=np.float64)
    trust = _trust(np.array([c.error for c in coordinates], dtype=np.float64))
    is_place = np.isfinite(places).all(axis=1) & (heights_s >= 0.0) & np.isfinite(trust)
    is_place &= np.isfinite(heights_s)
    return (
        np.where(is_place[:, None], places, 0.0),
        np.where(is_place, heights_s, 0.0),
        np.where(is_place, trust, 0.0),
    )


def _trust(errors: Floats) -> Floats:
    sure: Floats = np.clip((1.0 - errors) / (1.0 - UNSURE_FROM), 0.0, 1.0)
    return sure


def _from_here(here: Coordinate, places: Floats, heights_s: Floats, trust: Floats) -> Floats:
    away_s = np.sqrt(((places - np.array(here.place)) ** 2).sum(1)) + heights_s + here.height_s
    both = np.minimum(trust, _trust(np.array(here.error)))
    rtt_s: Floats = both * away_s + (1.0 - both) * UNKNOWN_RTT_S
    return rtt_s
