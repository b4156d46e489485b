"""The limits of pipelines over wide area networks, in closed form. Pure.

A chain of S hops has S + 1 ways: client to first hop, from each hop to the next, last hop to
client. A way takes ``o + bytes / rate + d`` (software, uplink, one-way delay), a forward of n
tokens at a hop ``c(n) = alpha + beta n``. ``L(n)`` is one loop of n tokens with nothing queued:
all ways and all forwards. Times are seconds, rates bytes or tokens per second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MAX_GUESSES = 64
CHUNKS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024)


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """A chain whose hops are alike, and all of whose uplinks are."""

    num_hops: int
    delay_s: float
    """d: of each way."""
    fixed_s: float
    """alpha: of a forward, whatever its size."""
    token_s: float = 0.0
    """beta: of each of its tokens."""
    overhead_s: float = 0.0
    """o: of each way."""
    token_bytes: float = 0.0
    """Of a hidden state. Token ids, on the first way and the last one, take nothing."""
    up_bytes_per_s: float = math.inf

    def forward_s(self, num_tokens: float) -> float:
        """c(n)."""
        return self.fixed_s + self.token_s * num_tokens

    def sending_s(self, num_tokens: float) -> float:
        """How long hidden states keep an uplink busy."""
        return self.token_bytes * num_tokens / self.up_bytes_per_s

    def loop_s(self, num_tokens: int = 1) -> float:
        """L(n) = (S + 1) (o + d) + (S - 1) n A / b + S c(n)."""
        ways = (self.num_hops + 1) * (self.overhead_s + self.delay_s)
        sending = (self.num_hops - 1) * self.sending_s(num_tokens)
        return ways + sending + self.num_hops * self.forward_s(num_tokens)

    def spacing_s(self, num_tokens: int) -> float:
        """How closely forwards of n tokens can follow each other: max(c(n), n A / b)."""
        return max(self.forward_s(num_tokens), self.sending_s(num_tokens))


def synchronous_rate(costs: Costs, acceptance: float, num_guesses: int, draft_s: float) -> float:
    """Tokens per second when a window is answered before the next one is guessed.

    (1 - a^(K+1)) / (1 - a) tokens per K t_draft + L(K + 1).
    """
    a = acceptance
    tokens = num_guesses + 1 if a >= 1 else (1 - a ** (num_guesses + 1)) / (1 - a)
    return tokens / (num_guesses * draft_s + costs.loop_s(num_guesses + 1))


def best_synchronous(costs: Costs, acceptance: float, draft_s: float) -> tuple[float, int]:
    """The best rate of synchronous windows, and their K."""
    sizes = range(MAX_GUESSES + 1)
    return max((synchronous_rate(costs, acceptance, size, draft_s), size) for size in sizes)


def asynchronous_rate(costs: Costs, acceptance: float, window: int, draft_s: float) -> float:
    """Tokens per second when windows of g tokens follow each other without waiting.

    A run of right guesses makes 1 / (1 - a) tokens. It takes the first window's way,
    D = (g - 1) t_draft + L(g), and T = max(g t_draft, spacing(g)) for each full window before the
    one with the wrong guess, a^g / (1 - a^g) of them on average; a wrong guess flushes the line.
    """
    full = acceptance**window
    first_s = (window - 1) * draft_s + costs.loop_s(window)
    each_s = max(window * draft_s, costs.spacing_s(window))
    return 1 / (1 - acceptance) / (first_s + each_s * full / (1 - full))


def best_asynchronous(costs: Costs, acceptance: float, draft_s: float) -> tuple[float, int]:
    """The best rate of windows in flight, and their size."""
    sizes = range(1, MAX_GUESSES // 2 + 1)
    return max((asynchronous_rate(costs, acceptance, size, draft_s), size) for size in sizes)


def flush_bound(costs: Costs, acceptance: float) -> float:
    """No lossless scheme has more tokens per second: 1 / ((1 - a) L)."""
    return 1 / ((1 - acceptance) * costs.loop_s())


def whole_prefill_s(costs: Costs, num_tokens: int) -> float:
    """First token when each hop waits for all of the prompt: S ways with it, and its forwards."""
    return costs.loop_s(num_tokens)


def chunked_prefill_s(costs: Costs, num_tokens: int, chunk: int) -> float:
    """First token when m chunks flow through the hops: L(q) + (m - 1) max(c(q), o + q A / b)."""
    spacing_s = max(costs.forward_s(chunk), costs.overhead_s + costs.sending_s(chunk))
    return costs.loop_s(chunk) + (math.ceil(num_tokens / chunk) - 1) * spacing_s


def best_chunked_s(costs: Costs, num_tokens: int) -> tuple[float, int]:
    """The least of it, and the chunk that it takes."""
    sizes = [size for size in CHUNKS if size <= num_tokens]
    return min((chunked_prefill_s(costs, num_tokens, size), size) for size in sizes)


def line_through(small: tuple[float, float], large: tuple[float, float]) -> tuple[float, float]:
    """(alpha, beta) of forwards of two sizes, each (tokens, seconds); neither is negative."""
    (fewer, short_s), (more, long_s) = small, large
    if more <= fewer:  # one size says nothing of the fixed part
        return 0.0, short_s / fewer
    beta = max(0.0, (long_s - short_s) / (more - fewer))
    return max(0.0, short_s - beta * fewer), beta
