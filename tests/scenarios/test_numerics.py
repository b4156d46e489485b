"""Identity in each numerics class: a token may differ only where the model itself is undecided."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from p2pnode.errors import NoChain
from p2pnode.lab.swarm import LocalSwarm
from p2pnode.numerics import QUANTS
from tests.support.models import BUILTIN

PROMPT = [1, 403, 407, 261, 378]
NUM_TOKENS = 48
NOISE = {"float32": 3e-6, "bfloat16": 1.6e-2}
"""Of logits of magnitude 1; measured between splits and batches."""

needs_library = pytest.mark.skipif(
    find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)

pytestmark = pytest.mark.virtual_time


def count_ties(folder: Path, dtype: str, prompt: list[int], answer: list[int]) -> int:
    """Compare by teacher forcing with the unsplit model: how many tokens are not its best.

    Each of them must be as good as the best within the noise; anything else fails.
    """
    kind = getattr(torch, dtype)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=kind).eval()
    with torch.inference_mode():
        logits = model(torch.tensor([prompt + answer])).logits[0].float()
    ties = 0
    for token_id, row in zip(answer, logits[len(prompt) - 1 : -1], strict=True):
        behind = float(row.max() - row[token_id])
        assert behind <= NOISE[dtype] * max(1.0, float(row.abs().max())), f"{behind} behind"
        ties += behind > 0
    return ties


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("ranges", [("0-26",), ("0-8", "9-17", "18-26")])
async def test_a_chain_writes_what_the_unsplit_model_writes_in_its_numerics_class(
    dtype: str, ranges: tuple[str, ...], cache: Path, record_property: Callable[[str, int], None]
) -> None:
    async with LocalSwarm(BUILTIN, cache=cache, dtype=dtype) as swarm:
        await swarm.start(*ranges)
        async with swarm.client() as client:
            done = await client.generate(PROMPT, max_tokens=NUM_TOKENS)
    ties = count_ties(BUILTIN, dtype, PROMPT, list(done.token_ids))
    record_property("ties", ties)
    assert done.chain.numerics == dtype
    assert dtype != "float32" or ties == 0


@needs_library
@pytest.mark.parametrize("quant", QUANTS)
async def test_a_chain_of_quantised_blocks_writes_what_one_such_block_writes(
    quant: str, tiny: Path, cache: Path
) -> None:
    texts = []
    for ranges in (("0-8",), ("0-2", "3-5", "6-8")):
        async with LocalSwarm(tiny, cache=cache) as swarm:
            swarm.quant = quant
            await swarm.start(*ranges)
            async with swarm.client() as client, asyncio.TaskGroup() as group:
                both = [
                    group.create_task(client.generate(prompt, max_tokens=NUM_TOKENS))
                    for prompt in (PROMPT, PROMPT[:2])
                ]
        done = [task.result() for task in both]
        assert {each.chain.numerics for each in done} == {f"float32+{quant}"}
        assert [len(each.chain.hops) for each in done] == [len(ranges)] * 2
        texts.append([each.token_ids for each in done])
    assert texts[0] == texts[1]


@needs_library
async def test_quantised_blocks_and_plain_ones_are_no_chain(tiny: Path, cache: Path) -> None:
    config = {"no_chain_patience_s": 0.5}
    async with LocalSwarm(tiny, cache=cache, config=config) as swarm:
        await swarm.start("0-4")
        swarm.quant = "int8"
        await swarm.start("5-8")
        async with swarm.client() as client:
            with pytest.raises(NoChain, match="cannot be chained"):
                await client.generate(PROMPT, max_tokens=2)


async def test_a_chain_does_not_mix_numerics_classes(tiny: Path, cache: Path) -> None:
    async with LocalSwarm(tiny, cache=cache) as swarm:
        await swarm.start("0-8", latency_s=1.0)
        swarm.dtype = "bfloat16"
        await swarm.start("0-4", latency_s=0.001)
        async with swarm.client() as client:
            done = await client.generate(PROMPT, max_tokens=2)
    assert done.chain.numerics == "float32"
    assert len(done.chain.hops) == 1
