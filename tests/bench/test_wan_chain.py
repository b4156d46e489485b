"""A real chain in namespaces, as benchmarks use it: every way of decoding gives the same text."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pnode.bench.wan_chain import Setting, greedy, wan_chain
from p2pnode.lab.reference import tiny_model
from p2pnode.lab.wan.worker import OracleOptions
from tests.lab.test_wan_network import needs_namespaces

PROMPT = (1, 403, 407, 261)
NUM_TOKENS = 32
DELAY_MS = 10

pytestmark = [pytest.mark.processes, needs_namespaces]


def test_layers_are_shared_out_evenly() -> None:
    ranges = Setting(model=None, num_layers=8, num_hops=3).ranges
    assert [(layers.start, layers.stop) for layers in ranges] == [(0, 2), (2, 5), (5, 8)]


async def test_each_way_of_decoding_takes_its_ways_and_makes_the_same_text(cache: Path) -> None:
    setting = Setting(model=tiny_model(cache / "lab", 2), num_layers=2, num_hops=2)
    async with wan_chain(setting) as chain:
        direct, mediated = await chain.client(), await chain.client(is_mediated=True)
        floor = await chain.floor(hidden_bytes=128)
        expected = (await direct.ask(greedy(PROMPT, NUM_TOKENS))).token_ids
        await chain.set_delay(DELAY_MS)
        loop_s = await floor.loop_s(8)
        plain = await direct.ask(greedy(PROMPT, NUM_TOKENS))
        carried = await mediated.ask(greedy(PROMPT, 8))
        oracle = OracleOptions(line=(*PROMPT, *expected), share=1.0)
        flowing = await direct.ask(greedy(PROMPT, NUM_TOKENS, oracle=oracle))
        waiting = await direct.ask(greedy(PROMPT, NUM_TOKENS, oracle=oracle, window=7))
    assert loop_s >= 3 * DELAY_MS / 1e3
    assert plain.token_s >= 3 * DELAY_MS / 1e3
    assert carried.token_s >= 4 * DELAY_MS / 1e3
    assert min(flowing.tokens_per_s, waiting.tokens_per_s) > plain.tokens_per_s
    assert (flowing.num_wrong, waiting.num_wrong) == (0, 0)
    assert waiting.num_right > NUM_TOKENS / 2
    assert all(compute_s > 0 for compute_s in plain.computes_s)
    texts = [plain.token_ids, flowing.token_ids, waiting.token_ids, carried.token_ids]
    assert texts == [expected, expected, expected, expected[:8]]
