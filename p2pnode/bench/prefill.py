"""`p2pnode bench prefill`: time to the first token of a long prompt on slow uplinks.

A thin client, three hops of a random model in bfloat16 that takes each of them 0.3 to 0.5 s for
the whole prompt. Whole: each hop waits for all of the prompt before it computes. Pipelined: the
client's chunks flow through the hops. Again: the same client asks with the same prompt once more,
and hops begin behind what they have kept of it.

The bound is the best chunk's time in `bench.bounds`, with the cost of forwards as the hops have
measured it while all of them were busy. A second one is this machine's: what its processors had to
do for an answer, shared evenly, takes so long. Where that is in the way, `prefill_simulated` shows
what is left when each hop has a machine of its own.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from statistics import median

import psutil
import torch

from p2pnode.bench.bounds import Costs, best_chunked_s, line_through
from p2pnode.bench.models import make_model
from p2pnode.bench.parts import Part, Setup
from p2pnode.bench.prefill_simulated import simulate
from p2pnode.bench.resilience_rows import with_remark
from p2pnode.bench.result import Row, at_most, figure
from p2pnode.bench.wan_chain import Answer, ChainClient, Setting, WanChain, greedy, wan_chain
from p2pnode.model.block import Block, Work
from p2pnode.model.spec import read_spec
from p2pnode.node.limits import cpu_s, our_processes
from p2pnode.types import LayerRange

NUM_HOPS = 3
PROMPT_TOKENS = 1024
HIDDEN_SIZE = 1024
INTERMEDIATE_SIZE = 2816
DTYPE = "bfloat16"
COMPUTE_S = 0.4
"""Of one hop, for the whole prompt."""
MOST_LAYERS = 16
UP_MBIT = 20.0
BYTES_PER_MBIT = 1e6 / 8
DELAY_MS = 20
OWN = 0
"""The client's own choice of chunks."""
SIZES = (32, 128)
"""Chunks from which the cost of a forward is found."""
WARM_TOKENS = 64
TRIES = 3


async def first_token(setup: Setup) -> list[Row]:
    """`pipelined_over_whole` and `over_bound`."""
    setup.note("choosing a model of the right cost")
    model, num_layers, alone = await asyncio.to_thread(_model, setup.folder)
    setting = Setting(
        model=model,
        num_layers=num_layers * NUM_HOPS,
        num_hops=NUM_HOPS,
        up_mbit=UP_MBIT,
        dtype=DTYPE,
        prefill_chunk_tokens=PROMPT_TOKENS,
    )
    async with wan_chain(setting) as chain:
        await chain.set_delay(DELAY_MS)
        clients = await _clients(chain)
        keeping = await chain.client(keeps_prefixes=True)
        again: list[Answer] = []
        busy_s: list[float] = []
        found: dict[int, list[Answer]] = {chunk: [] for chunk in clients}
        for index in range(setup.num_rounds):
            setup.note(f"{PROMPT_TOKENS} tokens: round {index + 1} of {setup.num_rounds}")
            for chunk, client in clients.items():
                chain.set_whole(is_whole=chunk == PROMPT_TOKENS)
                before_s = cpu_s(our_processes())
                found[chunk].append(await client.ask(greedy(_prompt(PROMPT_TOKENS), 2)))
                if chunk == OWN:
                    busy_s.append(cpu_s(our_processes()) - before_s)
            chain.set_whole(is_whole=False)
            prompt = _prompt(PROMPT_TOKENS, first=index)
            await keeping.ask(greedy(prompt, 2))
            again.append(await keeping.ask(greedy(prompt, 2)))
    setup.note("the same, simulated with a machine for each hop")
    prompt = _prompt(PROMPT_TOKENS)
    separate = await asyncio.to_thread(simulate, setup.folder, alone, HIDDEN_SIZE, prompt)
    whole_s = [answer.ttft_s for answer in found[PROMPT_TOKENS]]
    return [
        *_rows(found, num_layers),
        _machine(busy_s, whole_s),
        _separate(*separate, alone),
        _again(again, found[OWN]),
    ]


def _machine(busy_s: list[float], whole_s: list[float]) -> Row:
    """`pipelined_over_whole` cannot be less here, with all processors busy all the time."""
    cores = psutil.cpu_count() or 1
    shares = [busy / cores / whole for busy, whole in zip(busy_s, whole_s, strict=True)]
    row = figure("pipelined_over_whole_machine", shares, "ratio, the least here")
    return with_remark(row, f"{median(busy_s):.3g} s of work on {cores} processors")


def _separate(whole_s: float, pipelined_s: float, alone: Costs) -> Row:
    """`pipelined_over_whole` with a machine for each hop."""
    row = figure("pipelined_over_whole_simulated", [pipelined_s / whole_s], "ratio", whole_s)
    costs = f"a forward takes {alone.fixed_s * 1e3:.3g} ms and {alone.token_s * 1e3:.3g} per token"
    return with_remark(row, f"simulated, a machine per hop; {costs}")


def _again(again: list[Answer], first: list[Answer]) -> Row:
    times = [answer.ttft_s for answer in again]
    return figure("again_ttft_s", times, "s", median(answer.ttft_s for answer in first))


async def _clients(chain: WanChain) -> dict[int, ChainClient]:
    """By the size of their chunks, with connections that are warm."""
    sizes = (PROMPT_TOKENS, OWN, *SIZES)
    clients = {size: await chain.client(prefill_chunk_tokens=size) for size in sizes}
    for client in clients.values():
        await client.ask(greedy(_prompt(WARM_TOKENS), 4))
    return clients


def _rows(found: dict[int, list[Answer]], num_layers: int) -> list[Row]:
    times = {chunk: [answer.ttft_s for answer in answers] for chunk, answers in found.items()}
    whole = times[PROMPT_TOKENS]
    ratios = [ours / theirs for ours, theirs in zip(times[OWN], whole, strict=True)]
    bounds = [_bound(*pair) for pair in zip(*(found[size] for size in SIZES), strict=True)]
    over = [ours / bound for ours, (bound, _) in zip(times[OWN], bounds, strict=True)]
    computes = [compute_s for answer in found[PROMPT_TOKENS] for compute_s in _prompt_s(answer)]
    compute = figure("whole_compute_s", computes, "s per hop")
    bound_row = at_most("over_bound", over, "ratio", 1.2, median(bound for bound, _ in bounds))
    return [
        at_most("pipelined_over_whole", ratios, "ratio", 0.42, median(whole)),
        with_remark(bound_row, f"bound at chunks of {bounds[-1][1]}"),
        figure("pipelined_ttft_s", times[OWN], "s", median(whole)),
        *(figure(f"pipelined_{size}_ttft_s", times[size], "s", median(whole)) for size in SIZES),
        with_remark(compute, f"{num_layers} layers per hop"),
    ]


def _bound(small: Answer, large: Answer) -> tuple[float, int]:
    """The best time to the first token, and its chunk, from two sizes of chunks."""
    fixed_s, token_s = line_through(_forward(small), _forward(large))
    return best_chunked_s(_costs(fixed_s, token_s), PROMPT_TOKENS)


def _costs(fixed_s: float, token_s: float) -> Costs:
    return Costs(
        num_hops=NUM_HOPS,
        delay_s=DELAY_MS / 1e3,
        fixed_s=fixed_s,
        token_s=token_s,
        token_bytes=2.0 * HIDDEN_SIZE,
        up_bytes_per_s=UP_MBIT * BYTES_PER_MBIT,
    )


def _forward(answer: Answer) -> tuple[float, float]:
    """(tokens, seconds) of the slowest hop's forwards; hops may have split the client's chunks."""
    total_s, num_steps = max(zip(_prompt_s(answer), answer.nums_steps, strict=True))
    num_forwards = max(1, num_steps - 1)
    return PROMPT_TOKENS / num_forwards, total_s / num_forwards


def _prompt_s(answer: Answer) -> list[float]:
    """What each hop has computed for the prompt, and one step more."""
    return [each * num for each, num in zip(answer.computes_s, answer.nums_steps, strict=True)]


def _prompt(num_tokens: int, *, first: int = 0) -> tuple[int, ...]:
    return tuple((first + index) * 7 % 500 + 3 for index in range(num_tokens))


def _model(folder: Path) -> tuple[Path, int, Costs]:
    """A model, how many layers of it take a hop `COMPUTE_S` for the prompt, and alone. Blocks."""
    probe = _made(folder, 1)
    spec = read_spec(probe, probe.name, "")
    block = Block.load(probe, spec, LayerRange(0, 1), device="cpu", dtype=DTYPE)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the lab's machines have
    try:
        small, large = ((size, _forward_s(block, size)) for size in (SIZES[0], PROMPT_TOKENS))
    finally:
        torch.set_num_threads(num_threads)
    num_layers = min(MOST_LAYERS, max(1, round(COMPUTE_S / large[1])))
    alone = _costs(*(num_layers * each for each in line_through(small, large)))
    return _made(folder, num_layers * NUM_HOPS), num_layers, alone


def _made(folder: Path, num_layers: int) -> Path:
    return make_model(
        folder / f"prefill-{num_layers}",
        hidden_size=HIDDEN_SIZE,
        intermediate_size=INTERMEDIATE_SIZE,
        heads=16,
        kv_heads=4,
        head_dim=64,
        num_layers=num_layers,
    )


@torch.inference_mode()
def _forward_s(block: Block, num_tokens: int) -> float:
    """The least of several."""
    times = []
    for _ in range(TRIES):
        entry = torch.tensor(_prompt(num_tokens))
        work = Work(cache=block.new_cache(num_tokens), position=0, entry=entry)
        began = time.perf_counter()
        block.forward([work])
        times.append(time.perf_counter() - began)
    return min(times)


PARTS: tuple[tuple[str, Part], ...] = (("pipelined_over_whole", first_token),)
