"""Packets meet queues, rates, delay, jitter, loss and silence as the lines say; no network."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from p2pnode.lab.wan.packets import Access, Jitter, Line, Weather

A, B, C = bytes((77, 1, 0, 1)), bytes((77, 2, 0, 1)), bytes((77, 3, 0, 1))
KB = 1000
OPEN = Access()


def packet(receiver: bytes, size: int = 100, mark: int = 0) -> bytes:
    """An IPv4 header as far as the emulator reads it, and a mark."""
    return bytes((0x45,)) + bytes(11) + A + receiver + mark.to_bytes(4, "big") + bytes(size - 24)


def mark(data: bytes) -> int:
    return int.from_bytes(data[20:24], "big")


def near(seconds: float) -> Any:
    """That time, but for rounding."""
    return pytest.approx(seconds)


def weather(line: Line, access: Access = OPEN, *, seed: int = 0) -> Weather:
    made = Weather(random.Random(seed))
    for address in (A, B, C):
        made.attach(address, access)
    made.set_line(A, B, line)
    made.set_line(C, B, line)
    return made


def arrivals(made: Weather) -> list[tuple[float, int]]:
    """When each packet arrives that is under way, and its mark."""
    found = []
    while (now := made.next_due) != math.inf:
        found += [(now, mark(data)) for _, data in made.due(now)]
    return found


def test_a_packet_arrives_after_the_delay_and_not_before() -> None:
    made = weather(Line(delay_s=0.02))
    made.accept(packet(B, mark=7), A, 1.0)
    assert made.due(1.0199) == []
    assert [(address, mark(data)) for address, data in made.due(1.0201)] == [(B, 7)]
    assert made.next_due == math.inf


def test_the_uplink_sends_one_packet_after_the_other() -> None:
    made = weather(Line(delay_s=0.01), Access(up_bytes_per_s=100 * KB))
    for number in range(3):
        made.accept(packet(B, 1 * KB, number), A, 0.0)
    assert arrivals(made) == [(near(0.02), 0), (near(0.03), 1), (near(0.04), 2)]


def test_the_downlink_is_shared_by_all_who_send_to_it() -> None:
    made = weather(Line(), Access(down_bytes_per_s=100 * KB))
    made.accept(packet(B, 1 * KB, 0), A, 0.0)
    made.accept(packet(B, 1 * KB, 1), C, 0.0)
    assert arrivals(made) == [(near(0.01), 0), (near(0.02), 1)]


def test_a_line_has_a_rate_of_its_own() -> None:
    made = weather(Line(bytes_per_s=100 * KB))
    made.accept(packet(B, 1 * KB, 0), A, 0.0)
    made.accept(packet(C, 1 * KB, 1), A, 0.0)
    assert arrivals(made) == [(0.0, 1), (near(0.01), 0)]


@pytest.mark.parametrize("end", ["up_bytes_per_s", "down_bytes_per_s"])
def test_a_packet_that_would_wait_longer_than_the_queue_is_dropped(end: str) -> None:
    made = weather(Line(), Access(queue_s=0.05, **{end: 100 * KB}))
    for number in range(20):
        made.accept(packet(B, 1 * KB, number), A, 0.0)
    # Five wait for at most 50 ms, the sixth for exactly so long.
    assert [number for _, number in arrivals(made)] == [0, 1, 2, 3, 4, 5]
    assert made.counts.dropped == 14
    made.accept(packet(B, 1 * KB, 99), A, 1.0)
    assert arrivals(made) == [(near(1.01), 99)]


@pytest.mark.parametrize("jitter", ["uniform", "normal"])
def test_jitter_spreads_delays_around_the_delay_and_keeps_the_order(jitter: Jitter) -> None:
    made = weather(Line(delay_s=0.03, jitter_s=0.015, jitter=jitter))
    sent_s = 0.1
    for number in range(2000):
        made.accept(packet(B, mark=number), A, number * sent_s)
    found = arrivals(made)
    late = [at - number * sent_s for at, number in found]
    assert [number for _, number in found] == list(range(2000))
    assert sum(late) / len(late) == pytest.approx(0.03, rel=0.05)
    assert max(late) - min(late) > 0.02
    assert min(late) >= 0.0


def test_packets_sent_together_are_not_overtaken_unless_the_line_says_so() -> None:
    for reorders in (False, True):
        made = weather(Line(delay_s=0.03, jitter_s=0.03, reorders=reorders))
        for number in range(50):
            made.accept(packet(B, mark=number), A, 0.0)
        order = [number for _, number in arrivals(made)]
        assert (order == sorted(order)) is not reorders
        assert sorted(order) == list(range(50))


def test_a_share_of_packets_is_lost_and_the_same_ones_with_the_same_seed() -> None:
    survivors = []
    for seed in (1, 1, 2):
        made = weather(Line(loss=0.1), seed=seed)
        for number in range(5000):
            made.accept(packet(B, mark=number), A, 0.0)
        survivors.append([number for _, number in arrivals(made)])
        assert made.counts.lost == 5000 - len(survivors[-1])
        assert 400 < made.counts.lost < 600
    assert survivors[0] == survivors[1] != survivors[2]


def test_a_silent_line_lets_nothing_in_and_what_is_under_way_arrive() -> None:
    made = weather(Line(delay_s=0.02))
    made.accept(packet(B, mark=1), A, 0.0)
    made.set_line(A, B, Line(delay_s=0.02, is_silent=True))
    made.accept(packet(B, mark=2), A, 0.01)
    made.accept(packet(B, mark=3), C, 0.01)
    assert [number for _, number in arrivals(made)] == [1, 3]
    assert made.counts.silenced == 1
    made.set_line(A, B, Line())
    made.accept(packet(B, mark=4), A, 1.0)
    assert [number for _, number in arrivals(made)] == [4]


def test_what_is_not_ipv4_or_for_nobody_is_counted_and_goes_nowhere() -> None:
    made = weather(Line())
    made.accept(b"", A, 0.0)
    made.accept(bytes((0x60,)) + packet(B)[1:], A, 0.0)
    made.accept(packet(bytes((8, 8, 8, 8))), A, 0.0)
    made.accept(packet(B), bytes((9, 9, 9, 9)), 0.0)
    assert (made.counts.stray, made.next_due) == (4, math.inf)


def test_packets_to_a_machine_that_was_taken_away_vanish() -> None:
    made = weather(Line(delay_s=0.02))
    made.accept(packet(B), A, 0.0)
    made.detach(B)
    assert arrivals(made) == []
