"""`p2pnode bench speculation`: guessing ahead on wide area lines, beside plain decoding.

Three hops of a tiny model, and an oracle as drafter (`lab.oracle`): its guesses are right with a
given probability and take a given time. The built-in model and its own draft are measured too.
Bounds are those of `bench.bounds`, with what the run itself has measured.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from p2pnode.bench.bounds import Costs, best_asynchronous, line_through
from p2pnode.bench.parts import DELAYS_MS, Part, Setup, at_each_delay, least
from p2pnode.bench.resilience_rows import with_remark
from p2pnode.bench.result import Row, at_least, at_most, figure
from p2pnode.bench.wan_chain import Answer, ChainClient, Setting, WanChain, greedy, wan_chain
from p2pnode.errors import LocalError
from p2pnode.lab.reference import tiny_model
from p2pnode.lab.wan.worker import OracleOptions
from p2pnode.model.source import find_model
from p2pnode.model.text import TextCodec

NUM_HOPS = 3
PROMPT = (1, 403, 407, 261)
SHARES = (0.6, 0.8, 0.9)
GOALS = {0.0: 0.95, 0.6: 2.0, 0.8: 3.8, 0.9: 6.5}
TOKENS = {0.0: 100, 0.6: 150, 0.8: 250, 0.9: 500}
QUICK_TOKENS = {0.0: 30, 0.6: 40, 0.8: 60, 0.9: 120}
PLAIN_TOKENS = 100
QUICK_PLAIN_TOKENS = 16
DRAFT_MS = 1.0
SLOW_DRAFT_MS = 5.0
SLOW_SHARE = 0.8
SYNC_DELAY_MS = 20
SYNC_WINDOWS = (3, 4, 6, 8)
QUICK_SYNC_WINDOWS = (4, 8)
SYNC_TOKENS = 300
SIZING_WINDOW = 7
"""Steps of one token more: what larger steps cost a hop."""
SIZING_TOKENS = 64
BUILTIN_LAYERS = 27
STORY_TOKENS = 160
READING_PROMPT = 32
STORIES = (
    "Once upon a time there was a little girl who",
    "One day, Tom and his dog went to the park.",
    "The old bear lived in a small house near the forest.",
    "Lily had a red ball that she loved very much.",
)


class Rig:
    """A chain, a client, and the right answer."""

    def __init__(self, chain: WanChain, client: ChainClient, line: tuple[int, ...]) -> None:
        self.chain = chain
        self._client = client
        self._line = line

    async def with_ring(self) -> Rig:
        """The same with another client, for whom the last hop feeds the first one."""
        return Rig(self.chain, await self.chain.client(has_ring=True), self._line)

    async def plain(self, num_tokens: int) -> Answer:
        """Without guesses."""
        return await self._ask(num_tokens, OracleOptions())

    async def guessed(
        self, num_tokens: int, share: float, *, token_ms: float, window: int = 0, seed: int = 0
    ) -> Answer:
        """With an oracle; window: synchronous ones of so many guesses, 0: asynchronous."""
        oracle = OracleOptions(line=self._line, share=share, token_ms=token_ms, seed=seed)
        return await self._ask(num_tokens, oracle, window)

    async def _ask(self, num_tokens: int, oracle: OracleOptions, window: int = 0) -> Answer:
        request = greedy(PROMPT, num_tokens, oracle=oracle, window=window)
        answer = await self._client.ask(request)
        expected = self._line[len(PROMPT) : len(PROMPT) + num_tokens]
        if self._line and answer.token_ids != expected:
            raise LocalError("guesses have changed the text: this is a bug")
        return answer


async def rig(setup: Setup, chain: WanChain, num_tokens: int) -> Rig:
    """Learn the answer while lines are perfect."""
    setup.note("learning the answer")
    client = await chain.client()
    whole = await Rig(chain, client, ()).plain(num_tokens)
    return Rig(chain, client, (*PROMPT, *whole.token_ids))


async def tiny_setting(setup: Setup) -> Setting:
    """Three hops of one layer each."""
    model = await asyncio.to_thread(tiny_model, setup.folder, NUM_HOPS)
    return Setting(model=model, num_layers=NUM_HOPS)


def costs_of(plain: Answer, larger: Answer, delay_ms: float) -> Costs:
    """The chain as this run has measured it; larger: of steps of `SIZING_WINDOW` + 1 tokens."""
    alone_s, more_s = plain.compute_s / NUM_HOPS, larger.compute_s / NUM_HOPS
    fixed_s, token_s = line_through((1, alone_s), (SIZING_WINDOW + 1, more_s))
    delay_s = delay_ms / 1e3
    ways = NUM_HOPS + 1
    overhead_s = max(0.0, (plain.token_s - plain.compute_s) / ways - delay_s)
    return Costs(
        num_hops=NUM_HOPS,
        delay_s=delay_s,
        fixed_s=fixed_s,
        token_s=token_s,
        overhead_s=overhead_s,
    )


@dataclass(slots=True, eq=False)
class Gains:
    """What rounds at one delay have given, by the share of right guesses."""

    over_plain: dict[float, list[float]] = field(
        default_factory=lambda: {each: [] for each in GOALS}
    )
    over_bound: dict[float, list[float]] = field(
        default_factory=lambda: {each: [] for each in SHARES}
    )
    plain_rates: list[float] = field(default_factory=list)

    async def round(self, setup: Setup, rig: Rig, delay_ms: int, seed: int) -> None:
        """Everything once, in turns."""
        plain = await rig.plain(setup.few(PLAIN_TOKENS, QUICK_PLAIN_TOKENS))
        larger = await rig.guessed(SIZING_TOKENS, 1.0, token_ms=0.0, window=SIZING_WINDOW)
        costs = costs_of(plain, larger, delay_ms)
        self.plain_rates.append(plain.tokens_per_s)
        for share, gains in self.over_plain.items():
            num_tokens = setup.few(TOKENS[share], QUICK_TOKENS[share])
            answer = await rig.guessed(num_tokens, share, token_ms=DRAFT_MS, seed=seed)
            gains.append(answer.tokens_per_s / plain.tokens_per_s)
            if share in self.over_bound and answer.num_wrong:
                bound, _ = best_asynchronous(costs, answer.acceptance, answer.draft_s)
                self.over_bound[share].append(answer.tokens_per_s / bound)
        setup.note(f"{delay_ms} ms: " + ", ".join(f"{g[-1]:.2f}" for g in self.over_plain.values()))


async def oracles(setup: Setup) -> list[Row]:
    """`async_0.0`, `async_0.6`, `async_0.8`, `async_0.9` and `async_bound`."""
    found = {delay: Gains() for delay in DELAYS_MS}
    async with wan_chain(await tiny_setting(setup)) as chain:
        used = await rig(setup, chain, setup.few(TOKENS[0.9], QUICK_TOKENS[0.9]))
        for delay, gains in found.items():
            await chain.set_delay(delay)
            await used.plain(16)
            for index in range(setup.num_rounds):
                setup.note(f"{delay} ms: round {index + 1} of {setup.num_rounds}")
                await gains.round(setup, used, delay, seed=100 * delay + index)
    plain = {delay: median(gains.plain_rates) for delay, gains in found.items()}
    rows: list[Row] = []
    for share, limit in GOALS.items():
        values = {delay: gains.over_plain[share] for delay, gains in found.items()}
        rows += at_each_delay(f"async_{share}", least(limit), values, "x plain", plain)
    return [*rows, *_bound_rows(found)]


def _bound_rows(found: dict[int, Gains]) -> list[Row]:
    """The goal holds for the share that is furthest from its bound."""
    # In a short run every guess may have been right: then nothing is known of wrong ones.
    known = {
        delay: {share: values for share, values in gains.over_bound.items() if values}
        for delay, gains in found.items()
    }
    worst = {delay: min(each.values(), key=median) for delay, each in known.items()}
    return [
        *at_each_delay("async_bound", least(0.85), worst, "of the bound", {}),
        *(
            figure(f"async_bound_{share}_{delay}ms", values, "of the bound")
            for delay, each in known.items()
            for share, values in each.items()
        ),
    ]


async def against_synchronous(setup: Setup) -> list[Row]:
    """`async_over_sync_0.8`: over the best of several synchronous windows."""
    windows = QUICK_SYNC_WINDOWS if setup.is_quick else SYNC_WINDOWS
    num_tokens = setup.few(SYNC_TOKENS, SYNC_TOKENS // 3)
    rates: dict[int, list[float]] = {window: [] for window in (0, *windows)}
    async with wan_chain(await tiny_setting(setup)) as chain:
        used = await rig(setup, chain, num_tokens)
        await chain.set_delay(SYNC_DELAY_MS)
        await used.plain(16)
        for index in range(setup.num_rounds):
            setup.note(f"asynchronous and synchronous: round {index + 1} of {setup.num_rounds}")
            for window, found in rates.items():
                answer = await used.guessed(
                    num_tokens, SLOW_SHARE, token_ms=SLOW_DRAFT_MS, window=window, seed=index
                )
                found.append(answer.tokens_per_s)
    best = max(windows, key=lambda window: median(rates[window]))
    ratios = [ours / theirs for ours, theirs in zip(rates[0], rates[best], strict=True)]
    row = at_least("async_over_sync_0.8", ratios, "ratio", 1.3, median(rates[best]))
    swept = ", ".join(f"K={window}: {median(rates[window]):.1f}/s" for window in windows)
    return [with_remark(row, f"best K={best} of {swept}")]


async def builtin(setup: Setup) -> list[Row]:
    """`builtin_20ms` and `reading_speed`: the built-in model and its draft, story prompts."""
    codec = await asyncio.to_thread(_codec, setup)
    stories = [tuple(codec.encode(story)) for story in STORIES[: setup.few(len(STORIES), 1)]]
    num_tokens = setup.few(STORY_TOKENS, STORY_TOKENS // 4)
    gains, rates, firsts, accepted = list[float](), list[float](), list[float](), list[float]()
    plain_rates: list[float] = []
    async with wan_chain(Setting(model=None, num_layers=BUILTIN_LAYERS)) as chain:
        # The second as people have it.
        plain, drafted = await chain.client(), await chain.client(draft="auto", has_ring=True)
        await chain.set_delay(SYNC_DELAY_MS)
        for client in (plain, drafted):
            await client.ask(greedy(stories[0], 16))
        for index in range(setup.num_rounds):
            setup.note(f"built-in model and draft: round {index + 1} of {setup.num_rounds}")
            for story in stories:
                slow = await plain.ask(greedy(story, num_tokens))
                fast = await drafted.ask(greedy(story, num_tokens))
                _check_same(slow, fast)
                gains.append(slow.whole_s / fast.whole_s)
                plain_rates.append(slow.tokens_per_s)
                accepted.append(fast.acceptance)
            reading = await drafted.ask(greedy(_long(stories), num_tokens))
            rates.append(reading.tokens_per_s)
            firsts.append(reading.ttft_s)
    row = at_least("builtin_20ms", gains, "x plain", 2.5, median(plain_rates))
    speed = at_least("reading_speed", rates, "tokens/s", 30.0, median(plain_rates))
    first = at_most("reading_speed_ttft", firsts, "s", 1.0)
    return [row, speed, first, figure("builtin_acceptance", accepted, "of guesses")]


def _check_same(plain: Answer, drafted: Answer) -> None:
    if plain.token_ids != drafted.token_ids:
        raise LocalError("guesses have changed the text: this is a bug")


def _long(stories: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """A prompt of `READING_PROMPT` tokens."""
    line = [token_id for story in stories for token_id in story[1:]]
    times = -(-READING_PROMPT // len(line))
    return (stories[0][0], *(line * times)[: READING_PROMPT - 1])


def _codec(setup: Setup) -> TextCodec:
    return TextCodec.load(find_model(None, cache=setup.folder).folder)


PARTS: tuple[tuple[str, Part], ...] = (
    ("async_bound", oracles),
    ("async_over_sync_0.8", against_synchronous),
    ("builtin_20ms", builtin),
)
