"""What is fuzzed of a model's folder, which strangers wrote."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Sequence

import msgpack

from p2pnode.errors import BadRequest, ModelFilesError, ModelUnsupported
from p2pnode.model.chat import ChatTemplate
from p2pnode.model.json_file import read_json
from p2pnode.model.spec import read_config
from p2pnode.model.weights import WeightsFile
from tests.fuzz import files
from tests.fuzz.mutate import mutated, mutated_fields
from tests.fuzz.running import Target

QUIET = "transformers"
"""A logger that would have a line for each input."""


def safetensors() -> Target:
    """The header of a file of weights; no tensor is made for it."""
    file = files.file("model.safetensors")

    def sample(header: object, size: int) -> bytes:
        text = json.dumps(header).encode()
        return len(text).to_bytes(8, "little") + text + bytes(size)

    def decode(data: bytes) -> object:
        with WeightsFile(files.written(file, data)) as weights:
            return sum(entry.num_bytes for entry in weights.entries.values())

    one = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    two = {"dtype": "BF16", "shape": [3], "data_offsets": [16, 22]}
    samples = [
        sample({"model.layers.0.mlp.up_proj.weight": one, "b": two}, 22),
        sample({"__metadata__": {"format": "pt"}, "a": one}, 16),
    ]
    return Target(samples, decode, (ModelFilesError,))


def json_file() -> Target:
    """Any JSON file of a model's folder."""
    file = files.file("any.json")
    samples = [b'{"a": [1, 2.5e3, true, null], "b": {"c": "\\u00e4"}}', b"{}"]
    return Target(samples, lambda data: read_json(files.written(file, data)), (ModelFilesError,))


def config() -> Target:
    """A model's config.json."""
    logging.getLogger(QUIET).setLevel(logging.CRITICAL)
    file = files.file("config.json")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 9, "vocab_size": 512}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}
    table = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **sizes, **heads}
    rope = {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}
    samples = [json.dumps({**table, **more}).encode() for more in ({}, rope)]
    refusals = (ModelFilesError, ModelUnsupported)

    def decode(data: bytes) -> object:
        return read_config(files.written(file, data).parent)

    return Target(samples, decode, refusals, _json_fields)


def _json_fields(rng: random.Random, samples: Sequence[bytes]) -> bytes:
    """Like `mutated_fields`, for JSON."""
    if rng.random() < 0.5:
        return mutated(rng, samples)
    packed = [bytes(msgpack.packb(json.loads(sample))) for sample in samples]
    data = mutated_fields(rng, packed)
    try:
        return json.dumps(msgpack.unpackb(data), default=str).encode()
    except (ValueError, TypeError, msgpack.UnpackException):
        return data


def template() -> Target:
    """A model's chat template."""
    text = (
        "{% for m in messages %}<|{{ m['role'] }}|>{{ m.content | trim }}{{ eos_token }}"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    said = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]

    def decode(data: bytes) -> object:
        source = data.decode("utf-8", "replace")
        return ChatTemplate(source, {"eos_token": "</s>"}).render(said)

    return Target([text.encode()], decode, (ModelFilesError, BadRequest))
