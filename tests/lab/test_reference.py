"""The lab's reference is the unsplit model, and a request that cannot be run is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from p2pnode.errors import BadRequest
from p2pnode.lab.reference import prepare, tiny_model
from p2pnode.lab.scenario import Node, Request, Scenario
from p2pnode.types import LayerRange
from tests.support.models import BUILTIN, greedy

NODES = (Node(name="all", layers=LayerRange(0, 4)),)
SCENARIO = Scenario(name="s", nodes=NODES, client=Request(prompt_tokens=12, max_tokens=24))


def test_the_reference_is_what_transformers_writes(cache: Path) -> None:
    task = prepare(SCENARIO, cache)
    assert list(task.expected) == greedy(task.folder, list(task.prompt_ids), 24)
    assert len(set(task.expected)) > 12


def test_the_reference_of_the_builtin_model_is_what_transformers_writes(cache: Path) -> None:
    whole = Node(name="all", layers=LayerRange(0, 27))
    request = Request(prompt="Once upon a time", max_tokens=16)
    task = prepare(Scenario(name="s", nodes=(whole,), client=request, model="builtin"), cache)
    assert list(task.expected) == greedy(BUILTIN, list(task.prompt_ids), 16)


def test_a_seed_of_the_scenario_decides_the_prompt_and_one_of_the_request_the_text(
    cache: Path,
) -> None:
    first, again = prepare(SCENARIO, cache), prepare(SCENARIO, cache)
    assert first == again
    other = prepare(dataclasses.replace(SCENARIO, seed=1), cache)
    assert other.prompt_ids != first.prompt_ids
    texts = set()
    for seed in range(4):
        client = dataclasses.replace(SCENARIO.client, temperature=0.8, seed=seed)
        texts.add(prepare(dataclasses.replace(SCENARIO, client=client), cache).expected)
    assert len(texts) == 4


def test_the_tiny_model_is_made_once_and_never_ends_its_text(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path, 2)
    weights = (folder / "model.safetensors").stat()
    assert tiny_model(tmp_path, 2) == folder
    assert (folder / "model.safetensors").stat() == weights
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-2"]
    node = Node(name="all", layers=LayerRange(0, 2))
    request = Request(prompt_tokens=4, max_tokens=500)
    task = prepare(Scenario(name="s", nodes=(node,), client=request), tmp_path)
    assert len(task.expected) == 500


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"nodes": (Node(name="a", layers=LayerRange(1, 4)),)}, "nobody serves layers 0-0"),
        ({"model": "builtin"}, "nobody serves layers 4-26"),
        (
            {"model": "builtin", "nodes": (Node(name="a", layers=LayerRange(0, 28)),)},
            "node a serves 0-27, but stories-27 has layers 0-26",
        ),
        (
            {"client": Request(prompt_tokens=4096, max_tokens=4097)},
            "4096 prompt tokens and max_tokens = 4097 do not fit, tiny-4 holds 8192",
        ),
    ],
)
def test_what_cannot_be_run_is_refused(
    changes: dict[str, object], expected: str, cache: Path
) -> None:
    scenario = dataclasses.replace(SCENARIO, **changes)  # type: ignore[arg-type]
    with pytest.raises(BadRequest, match=expected):
        prepare(scenario, cache)
