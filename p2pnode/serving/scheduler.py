"""Which of the jobs that wait go into the next forward. Pure: time is handed in.

Rules:
- work-conserving: while a job of a chain waits, the next forward is not empty. Only for a moment
  steps wait for those that were in one forward with them last time (`hold_until`): they travel
  together, and the first one on its own would take about as long as all of them;
- one session's jobs stay in order, one of them per forward; only equal layers are merged, and
  layers take turns (oldest job first);
- decode steps and verify windows go first, up to `batch_limit`; of more, each client's oldest goes
  before anybody's second (round robin), and within that the longest-waiting one;
- prefill is split into pieces that fill a budget, which is never 0. While small jobs are in the
  same forward, it takes at most `PACE` times what they alone would take. Clients get equal shares
  of the budget, in turn where it is too small for all (as deficit round robin, Shreedhar and
  Varghese, 1995; since jobs can be split anywhere, there are no deficits to carry over);
- lazy jobs, which keep standbys up to date, run when no other job waits, and at most a share of
  the time: a volunteer's standby must not cost its own chains.

Merging pays since reading the weights is the same for one token and for many (`trend.Cost`):
``knee`` tokens cost as much as the weights.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, Protocol, Self, TypeVar
from weakref import WeakKeyDictionary, WeakSet

from p2pnode.trend import Cost

SMALL_TOKENS = 8, 32
"""Decode steps, verify windows and short prompts are never split: at most a knee of tokens, within
these bounds. Such a forward takes about twice what one token's takes."""
PACE = 2.0
MAX_FORWARD_TOKENS = 512
MIN_PIECE_TOKENS = 16
"""Prefill goes on by this much, whatever else waits."""
SHARE_OF_BEST = 0.9
"""A batch at the limit makes at least this share of the tokens per second of an endless one."""
MIN_BATCH_TOKENS = 8
RECENT_S = 1.0
"""Sessions whose steps came so lately will step again soon."""
QUIET_TOKENS = 32
QUIET_KNEES = 4.0
"""While they do, a forward without small jobs ends soon enough not to make the next one late."""
LAZY_SHARE = 0.25
"""The most of the time that lazy jobs may take."""
HOLD_SHARE = 0.25
"""Of what every forward takes: the longest that steps wait for their companions."""


class Waiting(Protocol):
    """As much of a job as the order depends on."""

    submitted_at: float

    @property
    def session(self) -> object: ...

    @property
    def block(self) -> object: ...

    @property
    def client(self) -> Hashable: ...

    @property
    def num_tokens(self) -> int: ...

    @property
    def is_void(self) -> bool: ...

    @property
    def is_lazy(self) -> bool: ...

    def split(self, num_tokens: int) -> Self: ...


J = TypeVar("J", bound=Waiting)


class Scheduler(Generic[J]):
    """The jobs of one device that have not begun."""

    def __init__(self, cost: Callable[[], Cost], *, batch_limit: int | None = None) -> None:
        """cost: as measured lately; batch_limit: instead of the one that follows from it."""
        self._cost = cost
        self._batch_limit = batch_limit
        self._lanes: dict[int, deque[J]] = {}
        self._turns: deque[Hashable] = deque()
        self._ran_at: WeakKeyDictionary[object, float] = WeakKeyDictionary()
        self._companions: WeakKeyDictionary[object, WeakSet[object]] = WeakKeyDictionary()
        """Of a session: those of its last forward, where there were others."""
        self._forwards = 0
        self._last_turn: dict[object, int] = {}
        self.lazy_from = 0.0
        """No lazy job begins before."""

    @property
    def num_waiting(self) -> int:
        """Jobs that have not begun."""
        return sum(map(len, self._lanes.values()))

    @property
    def batch_limit(self) -> int:
        """Tokens of small jobs in one forward."""
        if self._batch_limit is not None:
            return self._batch_limit
        wanted = self._cost().knee * SHARE_OF_BEST / (1.0 - SHARE_OF_BEST)
        return int(min(max(wanted, MIN_BATCH_TOKENS), MAX_FORWARD_TOKENS))

    @property
    def small_tokens(self) -> int:
        """The longest job that is never split."""
        least, most = SMALL_TOKENS
        return int(min(max(self._cost().knee, least), most))

    def put(self, job: J) -> None:
        """A job waits from now on."""
        self._lanes.setdefault(id(job.session), deque()).append(job)

    def hold_until(self, now: float) -> float:
        """Until when to wait for steps that will most likely come; not after ``now``: begin."""
        if not self._companions:
            return now
        heads = [job for job in self._heads() if not job.is_lazy]
        here = {job.session for job in heads}
        # One look at each group, not at each of its members: in a large batch these are all one.
        groups = {id(each): each for each in map(self._companions.get, here) if each is not None}
        lacks_some = any(not here.issuperset(group) for group in groups.values())
        most = self.small_tokens
        if not lacks_some or any(job.num_tokens > most for job in heads):
            return now
        return min(job.submitted_at for job in heads) + HOLD_SHARE * self._cost().fixed_s

    def take(self, now: float) -> list[J]:
        """The next forward; empty when none may begin now."""
        heads = self._heads()
        urgent = [job for job in heads if not job.is_lazy]
        if urgent:
            return self._chain(urgent, now)
        if not heads or now < self.lazy_from:
            return []
        heads = self._of_one_block(heads)
        heads.sort(key=lambda job: job.submitted_at)
        return list(self._pieces(heads, self._quiet_tokens(heads, now)))

    def note(self, batch: list[J], began: float, compute_s: float) -> None:
        """A forward has been done."""
        if batch[0].is_lazy:
            self.lazy_from = began + compute_s / LAZY_SHARE
            return
        together = WeakSet(job.session for job in batch)
        for job in batch:
            self._ran_at[job.session] = began
            if len(together) > 1:
                self._companions[job.session] = together
            else:
                self._companions.pop(job.session, None)

    def _heads(self) -> list[J]:
        """The first job of each session; forgets void ones."""
        heads = []
        for lane, jobs in list(self._lanes.items()):
            kept = deque(job for job in jobs if not job.is_void)
            if kept:
                self._lanes[lane] = kept
                heads.append(kept[0])
            else:
                del self._lanes[lane]
        return heads

    def _of_one_block(self, heads: list[J]) -> list[J]:
        """Those whose layers have not run for longest; of equal ones, those that wait longest."""
        turns = self._last_turn

        def order(job: J) -> tuple[int, float]:
            return turns.get(job.block, 0), job.submitted_at

        block = min(heads, key=order).block
        self._forwards += 1
        turns[block] = self._forwards
        return [job for job in heads if job.block is block]

    def _chain(self, urgent: list[J], now: float) -> list[J]:
        heads = self._of_one_block(urgent)
        most = self.small_tokens
        batch = self._small([job for job in heads if job.num_tokens <= most])
        large = [job for job in heads if job.num_tokens > most]
        if large:
            batch += self._prefill(large, self._budget(batch, large, now))
        return batch

    def _small(self, jobs: list[J]) -> list[J]:
        batch: list[J] = []
        left = self.batch_limit
        for job in _round_robin(jobs):
            if batch and job.num_tokens > left:
                break
            batch.append(self._begin(job, job.num_tokens))
            left -= job.num_tokens
        return batch

    def _budget(self, small: list[J], large: list[J], now: float) -> int:
        """Tokens of prefill beside these small jobs."""
        if not small:
            return self._quiet_tokens(large, now)
        knee = self._cost().knee
        extra = (PACE - 1.0) * (knee + sum(job.num_tokens for job in small))
        return int(min(max(extra, MIN_PIECE_TOKENS), MAX_FORWARD_TOKENS))

    def _quiet_tokens(self, jobs: list[J], now: float) -> int:
        """Tokens of a forward of these jobs, in which no small one is."""
        ours = {job.session for job in jobs}
        others = (at for each, at in self._ran_at.items() if each not in ours)
        if now - max(others, default=float("-inf")) > RECENT_S:
            return MAX_FORWARD_TOKENS
        wanted = max(QUIET_KNEES * self._cost().knee, QUIET_TOKENS)
        return int(min(wanted, MAX_FORWARD_TOKENS))

    def _prefill(self, jobs: list[J], budget: int) -> list[J]:
        """Pieces of at most so many tokens, from clients in turn."""
        waiting: dict[Hashable, list[J]] = {}
        for job in sorted(jobs, key=lambda job: job.submitted_at):
            waiting.setdefault(job.client, []).append(job)
        self._turns = deque(client for client in self._turns if client in waiting)
        self._turns.extend(client for client in waiting if client not in self._turns)
        batch: list[J] = []
        while waiting and budget > 0:
            share = max(MIN_PIECE_TOKENS, budget // len(waiting))
            for client in [client for client in self._turns if client in waiting]:
                jobs = waiting.pop(client)
                pieces = list(self._pieces(jobs, min(share, budget)))
                budget -= sum(piece.num_tokens for piece in pieces)
                batch += pieces
                if len(pieces) < len(jobs):
                    waiting[client] = jobs[len(pieces) :]
                if pieces:  # the next turn is that of those who got nothing
                    self._turns.remove(client)
                    self._turns.append(client)
        return batch

    def _pieces(self, jobs: list[J], budget: int) -> Iterator[J]:
        """From the first on, as much as fits."""
        for job in jobs:
            if budget > 0:
                num_tokens = min(budget, job.num_tokens)
                budget -= num_tokens
                yield self._begin(job, num_tokens)

    def _begin(self, job: J, num_tokens: int) -> J:
        """Take a job out, or split so much off it."""
        if num_tokens < job.num_tokens:
            return job.split(num_tokens)
        lane = self._lanes[id(job.session)]
        lane.popleft()
        if not lane:
            del self._lanes[id(job.session)]
        return job


def _round_robin(jobs: list[J]) -> list[J]:
    """Each client's oldest, then each one's second, and so on; oldest first."""
    taken: dict[Hashable, int] = {}
    ranked = []
    for job in sorted(jobs, key=lambda job: job.submitted_at):
        rank = taken[job.client] = taken.get(job.client, -1) + 1
        ranked.append((rank, job))
    return [job for _, job in sorted(ranked, key=lambda pair: pair[0])]
