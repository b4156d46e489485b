"""`p2pnode bench plan`: the memory of real nodes next to what `p2pnode plan` says of them.

Each node serves a whole random model of 500 MB or more. Its resident memory, less that of a node
with one layer of the built-in model in the same dtype and quantisation (the *base*: Python,
libraries, network), is compared with the sum of `p2pnode.sizes`: when it has loaded with the
weights, and at its highest during a session with weights + sessions + activations.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import logging

from p2pnode.bench.models import TOKENIZER
from p2pnode.bench.result import Row, result
from p2pnode.client.client import Client
from p2pnode.config import ClientConfig, NodeConfig, SwarmConfig, home
from p2pnode.errors import LocalError
from p2pnode.model.memory import read_sizes
from p2pnode.model.source import find_model
from p2pnode.model.spec import read_config
from p2pnode.node.processes import NodeProcess, NodeProcesses
from p2pnode.types import LayerRange

GOAL = 0.1
"""How far the sum may be off."""
PROMPT_TOKENS = 1024
NEW_TOKENS = 8
PATIENCE = 8.0
RESET_PEAK = "5"
"""What Linux wants written into ``clear_refs``."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

COMMON = {
    "vocab_size": 512,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "max_position_embeddings": 4096,
    "bos_token_id": 1,
    "eos_token_id": None,
}
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 5},
    "qwen3": {
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 20,
        "head_dim": 128,
        "vocab_size": 32768,
        "tie_word_embeddings": True,
    },
    "qwen3_moe": {
        "hidden_size": 1024,
        "moe_intermediate_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 6,
        "num_experts": 32,
        "num_experts_per_tok": 4,
        "head_dim": 64,
    },
    "gemma3_text": {
        "hidden_size": 1536,
        "intermediate_size": 6144,
        "num_hidden_layers": 8,
        "head_dim": 256,
        "num_attention_heads": 8,
        "sliding_window": 512,
        "vocab_size": 32768,
    },
    "llama-large": {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 10},
}
"""The last one is large enough to have 500 MB when it is quantised, too."""

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Case:
    """One node."""

    shape: str
    dtype: str
    quant: str = ""

    @property
    def name(self) -> str:
        """In metric ids."""
        return "_".join(part for part in (self.shape, self.dtype, self.quant) if part)

    @property
    def options(self) -> tuple[str, ...]:
        """Of `p2pnode serve`."""
        return "--dtype", self.dtype, "--quant", self.quant or "none"


CASES = (
    *(Case(shape, dtype) for shape in list(SHAPES)[:4] for dtype in ("float32", "bfloat16")),
    Case("llama-large", "bfloat16", "int8"),
    Case("llama-large", "bfloat16", "nf4"),
)
QUICK = (Case("qwen3", "float32"), Case("qwen3_moe", "bfloat16"))


async def plan(note: Note, *, is_quick: bool = False) -> dict[str, Any]:
    """All rows of the table; takes some minutes, and needs Linux's /proc."""
    rows: list[Row] = []
    bases: dict[tuple[str, ...], int] = {}
    with tempfile.TemporaryDirectory(prefix="p2pnode-bench-") as name:
        folder = Path(name)
        for case in QUICK if is_quick else CASES:
            note(f"making {case.name}")
            model = await asyncio.to_thread(_ready, folder, case.shape)
            if case.options not in bases:
                note(f"the base of {' '.join(case.options)}")
                bases[case.options] = await _base(folder, case)
            note(f"serving {case.name}")
            rows += await _measured(folder, model, case, bases[case.options])
    return result(rows)


def _ready(folder: Path, shape: str) -> Path:
    """The folder of a model; others are removed before it is made, since disks may be small."""
    model = folder / shape
    if not model.exists():
        for other in SHAPES:
            shutil.rmtree(folder / other, ignore_errors=True)
        make_shape(model, shape)
    return model


def make_shape(folder: Path, shape: str) -> Path:
    """A random model in bfloat16, with the built-in model's tokenizer."""
    logging.disable_progress_bar()
    family = shape.partition("-")[0]
    config = CONFIG_MAPPING[family](**{**COMMON, **SHAPES[shape]})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    source = find_model(None, cache=folder.parent).folder
    for name in TOKENIZER:
        shutil.copy(source / name, folder / name)
    return folder


async def _base(folder: Path, case: Case) -> int:
    place = _place(folder, "base")
    async with _processes(place, None, case) as processes:
        node = await processes.listen(LayerRange(0, 1))
        await processes.serve(node)
        return _memory(node, "VmRSS")


async def _measured(folder: Path, model: Path, case: Case, base: int) -> Sequence[Row]:
    """A node that has loaded, and the highest of a session."""
    sizes = read_sizes(read_config(model), case.dtype, quant=case.quant)
    place = _place(folder, "node")
    needed = sizes.needed(
        sizes.whole,
        session_tokens=PROMPT_TOKENS + NEW_TOKENS,
        step_tokens=NodeConfig().prefill_chunk_tokens,
    )
    async with _processes(place, model, case) as processes:
        node = await processes.listen(sizes.whole)
        await processes.serve(node)
        loaded = _memory(node, "VmRSS") - base
        _file(node, "clear_refs").write_text(RESET_PEAK)
        await _generate(place, node, model)
        highest = _memory(node, "VmHWM") - base
    await asyncio.to_thread(shutil.rmtree, place)
    return (
        _row(f"plan_loaded_{case.name}", needed.weights_bytes, loaded),
        _row(f"plan_session_{case.name}", needed.used_bytes, highest),
    )


def _processes(place: Path, model: Path | None, case: Case) -> NodeProcesses:
    """Patient: no time is measured."""
    return NodeProcesses(
        place,
        model=str(model) if model else None,
        environment=ONE_THREAD,
        options=case.options,
        patience=PATIENCE,
    )


async def _generate(place: Path, node: NodeProcess, model: Path) -> None:
    swarm = SwarmConfig(home=home(place), join=(node.address,), starts_swarm=False)
    config = ClientConfig(
        swarm=swarm,
        cache=swarm.home.cache,
        step_timeout_s=30.0 * PATIENCE,
        open_timeout_s=10.0 * PATIENCE,
        heartbeat_timeout_s=1.2 * PATIENCE,
        connect_timeout_s=3.0 * PATIENCE,
    )
    prompt = [index % 500 + 3 for index in range(PROMPT_TOKENS)]
    async with Client(config=config, model=str(model)) as client:
        await client.generate(prompt, max_tokens=NEW_TOKENS)


def _row(metric: str, predicted: int, measured: int) -> Row:
    ratio = predicted / measured
    return Row(
        metric=metric,
        value=ratio,
        unit="ratio",
        baseline=measured / 1e6,
        ratio=ratio,
        goal=f"{1 - GOAL:g} to {1 + GOAL:g}",
        met=abs(ratio - 1) <= GOAL,
        spread=f"sum {predicted / 1e6:.0f} MB, measured {measured / 1e6:.0f}",
    )


def _memory(node: NodeProcess, name: str) -> int:
    """A line of the process's status, in bytes; raises LocalError where the system has none."""
    for line in _file(node, "status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    raise LocalError(f"this system does not tell {name}; the benchmark needs Linux")


def _file(node: NodeProcess, name: str) -> Path:
    file = Path("/proc") / str(node.process.pid) / name
    if not file.exists():
        raise LocalError("this system has no /proc; the benchmark needs Linux")
    return file


def _place(folder: Path, name: str) -> Path:
    """A home for a swarm, empty."""
    place = folder / name
    if place.exists():
        shutil.rmtree(place)
    place.mkdir()
    return place
