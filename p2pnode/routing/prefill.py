"""How to cut a prompt into chunks, so that all hops and links of a chain work at once. Pure.

With chunks of q tokens the first one fills the chain, and the others follow at the pace of the
slowest hop or link (pipelined prefill; Agrawal et al., "Sarathi", 2023, for the chunks):

    time(q) = sum over hops of (c(q) + q A / b) + (m - 1) * max over hops of (c(q), q A / b)

with c(q) the compute time of a chunk, A the bytes of a row, b the uplink and m the chunks. Small
chunks fill sooner, large ones waste less on what every step costs. Near the best size the time is
flat, and large chunks suffer less from what is not in the formula: so the largest that is nearly
as good as the best one is taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from p2pnode.numerics import Numerics
from p2pnode.routing.steps import interpolated
from p2pnode.types import DTYPE_BYTES, Announcement, Chain, SwarmView

CHUNKS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
MIN_MEASURED_TOKENS = 16
"""Times of shorter steps do not tell what a chunk takes."""
NEARLY = 1.1
"""So many times the best chunk's time is as good."""
USUAL_UP_BYTES_PER_S = 20e6 / 8
"""The uplink of a volunteer who has not told it."""
KNEE_TOKENS = 4.0, 512.0
"""Between these, whatever a peer announces of its rates."""

StepTimes = Sequence[tuple[int, float, float]]


def prefill_s(
    num_tokens: int, chunk_tokens: int, hops: Sequence[StepTimes], send_s: Sequence[float]
) -> float:
    """The time from the first chunk's start to the last one's end, without delays of links.

    hops: each one's measured step times, as in `Health.step_times`
    send_s: how long each hop's link takes for one row
    """
    size = min(chunk_tokens, num_tokens)
    compute_s = [interpolated(times, size)[0] for times in hops]
    sent_s = [size * each for each in send_s]
    num_chunks = math.ceil(num_tokens / size)
    slowest_s = max((*compute_s, *sent_s))
    return sum(compute_s) + sum(sent_s) + (num_chunks - 1) * slowest_s


def chunk_tokens(view: SwarmView, chain: Chain, row_elements: int, num_tokens: int) -> int | None:
    """The size of chunks in which a prompt of so many tokens should be ready soonest.

    row_elements: the model's hidden_size
    returns: one of `CHUNKS`; None when some hop has announced nothing
    """
    announced = {a.peer: a for a in view.announcements}
    row_bytes = Numerics.parse(chain.numerics).row_bytes(row_elements)
    hops: list[StepTimes] = []
    send_s: list[float] = []
    for hop in chain.hops:
        a, known = announced.get(hop.peer), view.health.get(hop.peer)
        if a is None:
            return None
        times: StepTimes = known.health.step_times if known is not None else ()
        if not times or times[-1][0] < MIN_MEASURED_TOKENS:
            times = announced_times(a)
        share = len(hop.layers) / len(a.layers)
        hops.append([(n, p50 * share, p95 * share) for n, p50, p95 in times])
        is_last = hop is chain.hops[-1]
        send_s.append(0.0 if is_last else row_bytes / (a.up_bytes_per_s or USUAL_UP_BYTES_PER_S))
    return best_chunk(num_tokens, hops, send_s)


def announced_times(a: Announcement) -> StepTimes:
    """What steps should take a peer whose health has not told it yet, from what it announced.

    A step of one token takes as long as reading the weights, and as many tokens as that much
    arithmetic would take twice as long (the ridge point of the roofline; Williams et al., 2009).
    """
    weight_bytes = DTYPE_BYTES.get(Numerics.parse(a.numerics).dtype, 4)
    ridge = a.flops_per_s * weight_bytes / 2.0 / max(a.memory_bytes_per_s, 1.0)
    least, most = KNEE_TOKENS
    knee = min(max(ridge, least), most)
    times = [(n, a.latency_s * (1.0 + (n - 1) / knee)) for n in (1, CHUNKS[-1])]
    return [(n, each, each) for n, each in times]


def best_chunk(num_tokens: int, hops: Sequence[StepTimes], send_s: Sequence[float]) -> int:
    """The largest of `CHUNKS` that is nearly as good as the best; parameters as of `prefill_s`."""
    times = {size: prefill_s(num_tokens, size, hops, send_s) for size in CHUNKS}
    limit_s = NEARLY * min(times.values())
    return max(size for size, time_s in times.items() if time_s <= limit_s)
