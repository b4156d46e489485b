"""From the words of hops to their times: between two moments lie way, wait and computation."""

from __future__ import annotations

import pytest

from p2pnode.doctor.measured import HopMeasured, Ways
from p2pnode.doctor.steps import MAX_HEARD, MAX_HOPS, Heard, Round, chain_of
from p2pnode.types import Chain, Hop, LayerRange
from tests.support.peers import peer

A, B = peer("A"), peer("B")
CHAIN = Chain((Hop(A, LayerRange(0, 4)), Hop(B, LayerRange(4, 9))), "float32")
HALF_S = {A: 0.01, B: 0.05}
"""Half a round trip between each and us."""
BETWEEN_S = 0.03
AROUND_S = 0.025
"""From the last hop to the first one."""
QUEUE_S, COMPUTE_S = 0.002, 0.008
PROMPT = 64
MOVE_S = 0.4
"""What the prompt's rows take besides, between the two."""


def a_round(num_tokens: int, began_at: float = 100.0, move_s: float = MOVE_S) -> Round:
    """A session whose every moment is known."""
    this = Round(prompt_tokens=PROMPT, began_at=began_at, chain=CHAIN)
    now = began_at
    for step in range(num_tokens):
        for index, hop in enumerate(CHAIN.hops):
            if index == 0:
                now += AROUND_S if step else HALF_S[A]
            else:
                now += BETWEEN_S + (0.0 if step else move_s)
            now += QUEUE_S + COMPUTE_S
            heard = Heard(
                at=now + HALF_S[hop.peer],
                position=PROMPT + step,
                num_steps=1 + step,
                queue_s=QUEUE_S * (1 + step),
                compute_s=COMPUTE_S * (1 + step),
            )
            this.note((hop.peer, hop.layers.start), heard)
        this.token_at.append(now + HALF_S[B])
    return this


def reached() -> dict[object, HopMeasured]:
    return {
        hop.peer: HopMeasured(
            peer=hop.peer, layers=hop.layers, ways=Ways(rtts_s=(2 * HALF_S[hop.peer],) * 5)
        )
        for hop in CHAIN.hops
    }


def test_the_times_of_each_hop_are_found_again() -> None:
    chain = chain_of([a_round(5), a_round(5, 200.0)], reached())  # type: ignore[arg-type]
    assert chain is not None
    first, second = chain.hops
    assert [each.queue_s for each in chain.hops] == pytest.approx([QUEUE_S] * 2)
    assert [each.compute_s for each in chain.hops] == pytest.approx([COMPUTE_S] * 2)
    assert (first.way_s, second.way_s) == pytest.approx((AROUND_S, BETWEEN_S))
    assert first.transfer_s is None
    assert second.transfer_s == pytest.approx(MOVE_S)
    spent_s = 2 * (QUEUE_S + COMPUTE_S)
    assert chain.token_s == pytest.approx(AROUND_S + BETWEEN_S + spent_s)
    assert chain.ttft_s == pytest.approx(HALF_S[A] + BETWEEN_S + HALF_S[B] + spent_s + MOVE_S)
    assert (chain.num_tokens, chain.awaited) == (10, None)


def test_the_best_round_tells_what_the_bytes_take() -> None:
    """The first one finds connections that have just been opened."""
    chain = chain_of([a_round(5, move_s=3.0), a_round(5, 200.0)], reached())  # type: ignore[arg-type]
    assert chain is not None
    assert chain.hops[1].transfer_s == pytest.approx(MOVE_S)


def test_one_late_step_changes_no_median() -> None:
    late = a_round(8)
    key = (B, 4)
    at = late.heard[key][3]
    late.heard[key][3] = Heard(at.at + 5.0, at.position, at.num_steps, at.queue_s, at.compute_s)
    chain = chain_of([late], reached())  # type: ignore[arg-type]
    assert chain is not None
    assert chain.hops[1].way_s == pytest.approx(BETWEEN_S)


def test_a_round_that_was_cut_says_who_was_awaited_and_since_when() -> None:
    cut = a_round(3)
    cut.token_at.pop()
    cut.heard[B, 4].pop()
    last_at = cut.last_sign_at
    chain = chain_of([cut], {}, cut_at=last_at + 4.0)
    assert chain is not None
    assert chain.awaited == B
    assert chain.waited_s == pytest.approx(4.0)


def test_nothing_is_made_up_of_nothing() -> None:
    assert chain_of([], {}) is None
    assert chain_of([Round(prompt_tokens=PROMPT, began_at=0.0)], {}) is None
    silent = chain_of([Round(prompt_tokens=PROMPT, began_at=0.0, chain=CHAIN)], {}, cut_at=2.0)
    assert silent is not None
    assert (silent.token_s, silent.ttft_s, silent.awaited) == (None, None, A)
    assert [(each.compute_s, each.way_s) for each in silent.hops] == [(None, None)] * 2


def test_a_hop_that_talks_for_ever_fills_no_memory() -> None:
    this = Round(prompt_tokens=PROMPT, began_at=0.0, chain=CHAIN)
    for number in range(MAX_HEARD + 10):
        this.note((A, 0), Heard(float(number), 0, number, 0.0, 0.0))
        this.note((A, number), Heard(float(number), 0, number, 0.0, 0.0))
    assert len(this.heard[A, 0]) == MAX_HEARD
    assert len(this.heard) == MAX_HOPS
