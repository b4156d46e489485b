"""What a scenario's request must give: its model's folder, the prompt's ids, the right tokens.

The reference is the unsplit model in this process: one block with all layers, one cache, no
network. It samples by the product's own sampler, whose noise depends on seed and position only.
"""

from __future__ import annotations

import functools
import random
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig
from transformers.utils import logging

from p2pnode.errors import BadRequest
from p2pnode.lab.scenario import Request, Scenario
from p2pnode.model.block import Block, Work
from p2pnode.model.sampler import sample
from p2pnode.model.source import find_model
from p2pnode.model.spec import read_spec
from p2pnode.model.text import TextCodec
from p2pnode.types import LayerRange, ModelSpec, Sampling, uncovered

TINY_POSITIONS = 8192
TINY_SEED = 0
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
FIRST_PLAIN_ID = 3
"""Below are the tokenizer's special tokens."""
DTYPE = "float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A scenario's request, ready to be run."""

    folder: Path
    """The model's."""
    spec: ModelSpec
    prompt_ids: tuple[int, ...]
    max_tokens: int
    sampling: Sampling
    expected: tuple[int, ...]
    """The tokens of the unsplit model."""


def prepare(scenario: Scenario, cache: Path) -> Task:
    """Find or make the model, and compute what is right. Blocks; keeps things under ``cache``.

    Raises BadRequest when the nodes do not cover the model's layers or the request does not fit
    it, and what `find_model` raises.
    """
    name = scenario.model
    if name == "tiny":
        name = str(tiny_model(cache / "lab", max(node.layers.stop for node in scenario.nodes)))
    files = find_model(name, cache=cache)
    spec = read_spec(files.folder, files.name, files.fingerprint)
    _check_layers(scenario, spec)
    codec = _codec(files.folder)
    request = scenario.client
    prompt_ids = _prompt_ids(request, scenario.seed, spec, codec)
    if len(prompt_ids) + request.max_tokens > spec.max_positions:
        what = f"{len(prompt_ids)} prompt tokens and max_tokens = {request.max_tokens}"
        limit = f"{spec.name} holds {spec.max_positions}"
        raise BadRequest(f"{scenario.name}: {what} do not fit, {limit}; ask for fewer")
    sampling = Sampling(temperature=request.temperature, seed=request.seed)
    wanted = (prompt_ids, request.max_tokens, sampling, codec.eos_token_ids)
    return Task(
        folder=files.folder,
        spec=spec,
        prompt_ids=prompt_ids,
        max_tokens=request.max_tokens,
        sampling=sampling,
        expected=_generate(whole_block(files.folder, spec, DTYPE), *wanted),
    )


@functools.lru_cache(maxsize=4)
def whole_block(folder: Path, spec: ModelSpec, dtype: str, quant: str = "") -> Block:
    """All layers, loaded once for all who need a part: blocks hold no state of sessions."""
    whole = LayerRange(0, spec.num_layers)
    return Block.load(folder, spec, whole, device="cpu", dtype=dtype, quant=quant)


def tiny_model(folder: Path, num_layers: int) -> Path:
    """A Llama of so many thin layers with random weights; made once per ``folder``.

    Its text does not repeat itself, never ends by itself, and changes with any mistake.
    """
    place = folder / f"tiny-{num_layers}"
    if place.is_dir():
        return place
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as building:
        made = Path(building) / place.name
        write_tiny(made, num_layers)
        try:
            made.rename(place)
        except OSError:  # somebody else was faster
            if not place.is_dir():
                raise
    return place


def write_tiny(
    folder: Path,
    num_layers: int,
    *,
    max_positions: int = TINY_POSITIONS,
    eos_token_id: int | None = None,
) -> None:
    """Make the model's files anew; ``eos_token_id`` None: its text never ends by itself."""
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=max_positions,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=eos_token_id,
        tie_word_embeddings=False,
    )
    logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(TINY_SEED)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    if eos_token_id is None:
        # An empty list, not None: then the tokenizer's end of text does not count either.
        (folder / "generation_config.json").write_text('{"eos_token_id": []}\n')
    builtin = find_model(None, cache=folder.parent).folder
    for name in TOKENIZER_FILES:
        shutil.copy(builtin / name, folder / name)


def _check_layers(scenario: Scenario, spec: ModelSpec) -> None:
    for node in scenario.nodes:
        if node.layers.stop > spec.num_layers:
            last = f"{spec.name} has layers 0-{spec.num_layers - 1}"
            raise BadRequest(f"{scenario.name}: node {node.name} serves {node.layers}, but {last}")
    missing = uncovered((node.layers for node in scenario.nodes), spec.num_layers)
    if missing:
        names = ", ".join(map(str, missing))
        raise BadRequest(f"{scenario.name}: nobody serves layers {names}; add a node for them")


@functools.lru_cache(maxsize=4)
def _codec(folder: Path) -> TextCodec:
    return TextCodec.load(folder)


def _prompt_ids(request: Request, seed: int, spec: ModelSpec, codec: TextCodec) -> tuple[int, ...]:
    if request.prompt is not None:
        return tuple(codec.encode(request.prompt))
    if request.prompt_tokens is None:
        return tuple(codec.encode("Once upon a time"))
    rng = random.Random(seed)
    plain = range(FIRST_PLAIN_ID, min(codec.vocab_size, spec.vocab_size))
    return tuple(rng.choices(plain, k=request.prompt_tokens))


@functools.lru_cache(maxsize=256)
@torch.inference_mode()
def _generate(
    block: Block,
    prompt_ids: tuple[int, ...],
    max_tokens: int,
    sampling: Sampling,
    eos_token_ids: frozenset[int],
) -> tuple[int, ...]:
    """What the client must get, the token that ends the text included."""
    cache = block.new_cache(len(prompt_ids) + max_tokens)
    token_ids, entry = list(prompt_ids), list(prompt_ids)
    while len(token_ids) < len(prompt_ids) + max_tokens:
        work = Work(cache=cache, position=cache.position, entry=torch.tensor(entry))
        (hidden,) = block.forward([work])
        (logits,) = block.logits(hidden[-1:])
        entry = [sample(logits, sampling, position=len(token_ids), token_ids=token_ids)]
        token_ids += entry
        if entry[0] in eos_token_ids:
            break
    return tuple(token_ids[len(prompt_ids) :])
