"""Plans by hand: what fits where, what it would do, and what is advised. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, pairwise, permutations

import pytest

from p2pnode.errors import BadRequest
from p2pnode.plan.advice import advice
from p2pnode.plan.latency import Compute, Part, chain_speed
from p2pnode.plan.machine import EFFICIENCY, HOP_S, Machine, Ways, Work
from p2pnode.plan.plan import Plan, Prices, make_plan
from p2pnode.plan.split import EVENNESS, MAX_LAYERS, Splitter
from p2pnode.sizes import MEMORY_SHARE, ModelSizes, PartSizes
from p2pnode.types import LayerRange

GB = 10**9
WAYS = Ways(rtt_s=0.04, up_bytes_per_s=2.5e6)
WORK = Work(context_tokens=2048, batch=1, chunk_tokens=256)


def part(num_weights: int, kv_bytes: int = 0, experts: int = 0) -> PartSizes:
    return PartSizes(
        weights_bytes=2 * num_weights,
        num_weights=num_weights,
        expert_bytes=2 * experts,
        num_expert_weights=experts,
        kv_bytes_per_token=kv_bytes,
    )


def sizes_of(
    num_layers: int = 32, *, layer: PartSizes | None = None, end: int = 500_000_000
) -> ModelSizes:
    """By default an 8B model in bfloat16."""
    return ModelSizes(
        layers=(layer or part(218_000_000, 4096),) * num_layers,
        embedding=part(end),
        head=part(end),
        tied_bytes=0,
        hidden_size=4096,
        vocab_size=128_000,
        max_positions=131_072,
        dtype_bytes=2,
        widest=14_336,
    )


def machine(memory_gb: float, *, gb_per_s: float = 300.0) -> Machine:
    return Machine(
        name=f"{memory_gb:g} GB",
        memory_bytes=int(memory_gb * GB),
        memory_bytes_per_s=gb_per_s * 1e9,
        flops_per_s=gb_per_s * 50e9,
    )


def plan_of(
    *memories_gb: float,
    sizes: ModelSizes | None = None,
    smaller: dict[str, ModelSizes] | None = None,
    ways: Ways = WAYS,
    work: Work = WORK,
) -> Plan:
    forms = {"": sizes or sizes_of(), **(smaller or {})}
    return make_plan(forms, "", [machine(each) for each in memories_gb], ways, work)


# --- sums


def test_a_block_is_its_layers_and_its_ends() -> None:
    sizes = sizes_of(4, layer=part(100), end=7)
    assert sizes.weights_bytes(LayerRange(1, 3)) == 400
    assert sizes.weights_bytes(LayerRange(0, 3)) == sizes.weights_bytes(LayerRange(1, 4)) == 614
    assert sizes.weights_bytes(sizes.whole) == 828
    assert sizes.weights_bytes(sizes.whole, ends=False) == 800


def test_a_tied_matrix_is_held_by_both_ends_and_once_by_a_block_that_is_both() -> None:
    tied = replace(sizes_of(4, layer=part(100), end=7), tied_bytes=14)
    assert tied.weights_bytes(tied.whole) == 814
    halves = (tied.weights_bytes(LayerRange(*each)) for each in ((0, 2), (2, 4)))
    assert sum(halves) == 828
    assert tied.weights_bytes(LayerRange(0, 0)) == 14  # the client's own ends


def test_sessions_fill_their_share_of_what_weights_and_activations_leave() -> None:
    needed = sizes_of().needed(LayerRange(3, 7), session_tokens=1000, step_tokens=256)
    assert needed.sessions_bytes == 1000 * (4 * 4096 + 2 * 8192)
    left = needed.total_bytes - needed.weights_bytes - needed.activation_bytes
    assert needed.sessions_bytes == pytest.approx(MEMORY_SHARE * left)
    assert needed.activation_bytes == 256 * 2 * (6 * 4096 + 8 * 14_336)


# --- splits


def test_what_fits_one_machine_stays_on_it() -> None:
    plan = plan_of(8, 24)
    assert [(str(each.layers), each.machine.name) for each in plan.parts] == [("0-31", "24 GB")]
    assert plan.is_alone_better
    assert advice(plan).startswith("run it on one machine: 24 GB makes ")


def test_what_fits_none_is_split_and_every_part_fits_its_machine() -> None:
    plan = plan_of(8, 6, 8)
    assert plan.alone is None
    assert [each.layers.start for each in plan.parts] == [
        0,
        *(each.layers.stop for each in plan.parts[:-1]),
    ]
    assert plan.parts[-1].layers.stop == 32
    assert all(plan.needed(each).total_bytes <= each.machine.memory_bytes for each in plan.parts)
    assert advice(plan).startswith("split it over 3 machines: ")


def test_the_ends_are_counted_where_they_are() -> None:
    """6 GB hold 13 layers of 436 MB, or 10 and an end."""
    plan = plan_of(6, 6, 6)
    assert max(len(each.layers) for each in plan.parts) <= 13
    first, _, last = plan.parts
    assert len(first.layers) <= 11 >= len(last.layers)
    assert not plan_of(6, 6).fits


def test_the_machine_that_can_hold_an_end_gets_it_wherever_it_was_named() -> None:
    large_ends = sizes_of(6, layer=part(500_000_000), end=1_900_000_000)
    plan = plan_of(2.5, 8, 8, sizes=large_ends)
    assert plan.fits
    assert [each.machine.name for each in plan.parts if each.layers.start == 0] == ["8 GB"]


def splits_of(machines: list[Machine], num_layers: int) -> Iterator[tuple[Part, ...]]:
    """All orders, subsets of two or more, and edges."""
    for count in range(2, len(machines) + 1):
        for chosen in permutations(machines, count):
            for inner in combinations(range(1, num_layers), count - 1):
                edges = pairwise((0, *inner, num_layers))
                yield tuple(
                    Part(each, LayerRange(*edge)) for each, edge in zip(chosen, edges, strict=True)
                )


@pytest.mark.parametrize("memories", [(3.2, 4.0, 6.4), (2.4, 2.4, 5.0), (1.0, 1.0, 1.0)])
@pytest.mark.parametrize("speeds", [(300, 900, 150), (100, 100, 800), (50, 300, 300)])
def test_no_other_split_is_faster(memories: tuple[float, ...], speeds: tuple[float, ...]) -> None:
    machines = [
        machine(memory, gb_per_s=speed) for memory, speed in zip(memories, speeds, strict=True)
    ]
    compute = Compute(sizes_of(8, layer=part(300_000_000, 4096), end=200_000_000))
    splitter = Splitter(compute, WAYS, WORK)
    found = splitter.split(machines)
    fitting = [
        split
        for split in splits_of(machines, 8)
        if all(splitter.needed_bytes(p.layers) <= p.machine.memory_bytes for p in split)
    ]
    assert bool(found) == bool(fitting)
    if found:
        best_s = min(chain_speed(compute, split, WAYS, WORK).token_s for split in fitting)
        found_s = chain_speed(compute, found, WAYS, WORK).token_s
        assert best_s <= found_s * (1 + 1e-9) <= best_s * (1 + EVENNESS) * (1 + 2e-9)


def test_of_equally_fast_splits_the_even_one_is_taken() -> None:
    lengths = [len(each.layers) for each in plan_of(10, 10).parts]
    assert lengths == [17, 15]  # the second has the head besides


def test_a_hundred_layers_over_sixty_machines_take_a_moment() -> None:
    plan = plan_of(*(4.0 + index / 16 for index in range(60)), sizes=sizes_of(126))
    assert plan.fits
    with pytest.raises(BadRequest, match=f"at most {MAX_LAYERS} layers"):
        plan_of(8, sizes=sizes_of(MAX_LAYERS + 1))


# --- times


def test_a_token_waits_for_memory_hops_and_ways() -> None:
    plan = plan_of(8, 6, 8)
    assert plan.speed is not None
    kv_bytes = 32 * 4096 * 2048
    read_s = (2 * (32 * 218e6 + 500e6) + kv_bytes) / (300e9 * EFFICIENCY)
    way_s = 4 * 0.02 + 3 * HOP_S + 2 * 8192 / 2.5e6
    assert plan.speed.token_s == pytest.approx(read_s + way_s)
    assert plan.speed.tokens_per_s == pytest.approx(1 / plan.speed.token_s)


def test_of_experts_a_token_reads_its_share_and_many_tokens_read_nearly_all() -> None:
    sizes = replace(
        sizes_of(4, layer=part(1000, experts=800), end=0), expert_share=0.25, hidden_size=0
    )
    step_s = Compute(sizes).step_s
    here = machine(8)
    one, many = (step_s(here, 0, 4, rows=rows, sessions=1, held=0) for rows in (1, 64))
    assert one == pytest.approx(4 * 2 * (200 + 200) / (300e9 * EFFICIENCY))
    assert many == pytest.approx(4 * 2 * 1000 / (300e9 * EFFICIENCY), rel=0.01)


def test_tensor_parallelism_pays_two_round_trips_per_layer() -> None:
    plan = plan_of(8, 6, 8)
    assert plan.tensor_parallel is not None
    assert plan.tensor_parallel.token_s > 2 * 32 * WAYS.rtt_s
    near = plan_of(8, 6, 8, ways=Ways(rtt_s=0.00001, up_bytes_per_s=10e9))
    assert near.speed is not None
    assert near.tensor_parallel is not None
    assert near.tensor_parallel.token_s < near.speed.token_s


def test_ten_stages_are_slower_than_three_by_the_ways() -> None:
    plan = plan_of(8, 6, 8)
    assert plan.speed is not None
    assert plan.ten_stages is not None
    more_s = 7 * (WAYS.rtt_s / 2 + HOP_S + 8192 / 2.5e6)
    assert plan.ten_stages.token_s == pytest.approx(plan.speed.token_s + more_s)


def test_more_sessions_make_more_tokens_and_each_waits_longer() -> None:
    one, many = plan_of(8, 6, 9), plan_of(8, 6, 9, work=replace(WORK, batch=8))
    assert one.speed is not None
    assert many.speed is not None
    assert one.speed.tokens_per_s < many.speed.tokens_per_s < 8 * one.speed.tokens_per_s


def test_a_longer_prompt_takes_longer_and_a_fast_uplink_less() -> None:
    short, long = (plan_of(8, 8, 8, work=replace(WORK, context_tokens=n)) for n in (256, 4096))
    fast = plan_of(
        8,
        8,
        8,
        work=replace(WORK, context_tokens=4096),
        ways=Ways(rtt_s=0.04, up_bytes_per_s=125e6),
    )
    assert short.speed is not None and long.speed is not None and fast.speed is not None
    assert short.speed.ttft_s < fast.speed.ttft_s < long.speed.ttft_s
    assert long.speed.ttft_s > 4096 * 8192 / 2.5e6  # every row crosses the slowest link


# --- advice and prices


def test_smaller_weights_on_one_machine_are_named_where_they_are_better() -> None:
    nf4 = sizes_of(32, layer=part(60_000_000, 4096), end=500_000_000)
    plan = plan_of(8, 6, 8, smaller={"nf4": nf4})
    assert plan.fits
    assert len(plan.parts) == 3
    assert advice(plan).startswith("run it on one machine: 8 GB with --quant nf4 makes ")


def test_what_does_not_fit_says_how_much_is_missing_and_what_would_help() -> None:
    plan = plan_of(4, 4)
    assert not plan.fits
    assert plan.speed is None
    assert advice(plan).startswith("it does not fit: 16.")
    assert advice(plan).endswith("; add machines, or take a shorter --context or a smaller --batch")
    nf4 = sizes_of(32, layer=part(30_000_000, 4096), end=500_000_000)
    assert advice(plan_of(2.8, 2.8, smaller={"nf4": nf4})).endswith("; take --quant nf4")


def test_a_slow_machine_that_holds_everything_loses_to_fast_ones_that_are_near() -> None:
    machines = [machine(64, gb_per_s=10), machine(12, gb_per_s=900), machine(12, gb_per_s=900)]
    near = Ways(rtt_s=0.001, up_bytes_per_s=125e6)
    plan = make_plan({"": sizes_of()}, "", machines, near, WORK)
    assert len(plan.parts) == 2
    assert not plan.is_alone_better
    assert "64 GB alone makes" in advice(plan)


def test_a_million_tokens_cost_what_the_machines_take_meanwhile() -> None:
    prices = Prices(watts=300, price_kwh=0.3)
    assert prices.per_million_tokens(2, 10.0) == pytest.approx(0.6 * 1e5 / 3600 * 0.3)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: Ways(rtt_s=-1, up_bytes_per_s=1e6), "a round trip"),
        (lambda: Ways(rtt_s=float("nan"), up_bytes_per_s=1e6), "a round trip"),
        (lambda: Ways(rtt_s=0, up_bytes_per_s=0), "an uplink"),
        (lambda: Work(context_tokens=0, batch=1, chunk_tokens=256), "context must be"),
        (lambda: Work(context_tokens=1, batch=0, chunk_tokens=256), "batch must be"),
        (lambda: Prices(watts=float("inf")), "watts must be"),
        (lambda: machine(0), "has no memory"),
        (lambda: plan_of(), "for 1 to 64 machines"),
        (lambda: plan_of(*[8.0] * 65), "for 1 to 64 machines"),
        (lambda: plan_of(8, work=replace(WORK, context_tokens=200_000)), "holds 131072"),
    ],
)
def test_what_cannot_be_is_refused(make: object, what: str) -> None:
    assert callable(make)
    with pytest.raises(BadRequest, match=what):
        make()
