"""A model of 81 layers in three stages, of which one loses its faster peer in mid-session.

Stages 0-26 and 27-53 have two peers each, 54-80 has one. They run in this process, on a network in
memory; everything else is what real nodes run. The tokens are compared with the unsplit model's.

    python examples/three_stages.py
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from contextlib import aclosing
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

import p2pnode
from p2pnode.lab.swarm import LocalSwarm
from p2pnode.model.reference import greedy
from p2pnode.model.spec import read_spec
from p2pnode.node.loading import check_layers

PROMPT = "Once upon a time"
NUM_TOKENS = 24
DIES_AT = 8
FAST_S, SLOW_S = 0.001, 0.01


def tiny_model(folder: Path, num_layers: int) -> Path:
    """Random weights, small and deep; the tokenizer is that of the built-in model."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.3,
        eos_token_id=None,
    )
    model: Any = AutoModelForCausalLM
    model.from_config(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(str(files("p2pnode") / "model" / "builtin" / name), folder)
    return folder


async def tell(swarm: LocalSwarm) -> p2pnode.Done:
    """Generate, and kill the peer that serves the middle of the chain."""
    async with swarm.client() as client:
        num_tokens = 0
        async with aclosing(client.stream(PROMPT, max_tokens=NUM_TOKENS)) as events:
            async for event in events:
                if isinstance(event, p2pnode.ChainChosen):
                    middle = event.chain.hops[1].peer
                    print(f"chain: {event.chain}")
                elif isinstance(event, p2pnode.Done):
                    return event
                else:
                    num_tokens += 1
                    if num_tokens == DIES_AT:
                        print(f"{middle.short} dies after token {num_tokens}")
                        swarm.kill(swarm.node(middle))
    raise SystemExit("the answer did not end")


async def main(folder: Path) -> None:
    """Three stages and a death; then a range that the model does not have."""
    model = tiny_model(folder / "tiny-81", 81)
    async with LocalSwarm(model, cache=folder / "cache") as swarm:
        await swarm.start("0-26", "27-53", "54-80", latency_s=FAST_S)
        await swarm.start("0-26", "27-53", latency_s=SLOW_S)
        fast = swarm.nodes[1].peer
        done = await tell(swarm)
        async with swarm.client() as client:
            prompt_ids = client.model.encode(PROMPT)
    expected = greedy(model, prompt_ids, NUM_TOKENS)
    is_same = list(done.token_ids) == expected
    has_moved = fast not in [hop.peer for hop in done.chain.hops]
    print(f"{len(expected)} tokens, failovers: {done.failovers}, as the unsplit model: {is_same}")

    shorter = tiny_model(folder / "tiny-80", 80)
    try:
        check_layers(p2pnode.LayerRange.parse("54-80"), read_spec(shorter, "tiny-80", ""))
    except p2pnode.BadRequest as error:
        print(f"{error.kind}: {error}")
    if not (is_same and has_moved and done.failovers == 1):
        raise SystemExit("something is wrong")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(main(Path(name)))
