"""The built-in model: small, fluent, and every one of its 27 layers does work."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from p2pnode.model.training.measure import bits_per_character, draft_acceptance, read_held_out

BUILTIN = Path(str(resources.files("p2pnode") / "model" / "builtin"))
HELD_OUT = Path(__file__).with_name("held_out.txt")
NUM_LAYERS = 27


def load(folder: Path) -> Any:
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


@pytest.fixture(scope="module")
def model() -> Any:
    return load(BUILTIN)


@pytest.fixture(scope="module")
def draft() -> Any:
    return load(BUILTIN / "draft")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(BUILTIN)


@pytest.fixture(scope="module")
def stories() -> list[str]:
    return read_held_out(HELD_OUT)


def card_figure(row: str) -> float:
    """A number from the table of the model card."""
    found = re.search(rf"^\| {row} \| ([0-9.]+) \|", (BUILTIN / "README.md").read_text(), re.M)
    assert found is not None, row
    return float(found[1])


@pytest.fixture(scope="module")
def prompt(tokenizer: Any) -> torch.Tensor:
    return torch.tensor([tokenizer("Once upon a time")["input_ids"]])


@pytest.fixture(scope="module")
def story(model: Any, prompt: torch.Tensor) -> torch.Tensor:
    """What the model writes greedily after the prompt, prompt included: [1, tokens]."""
    mask = torch.ones_like(prompt)
    out = model.generate(prompt, attention_mask=mask, max_new_tokens=500, do_sample=False)
    return torch.as_tensor(out)


def test_it_has_27_layers_and_plain_bfloat16_weights(model: Any) -> None:
    assert model.config.model_type == "llama"
    assert len(model.model.layers) == NUM_LAYERS
    assert model.config.tie_word_embeddings
    with safe_open(BUILTIN / "model.safetensors", framework="pt") as file:
        names = set(file.keys())
        assert {file.get_slice(name).get_dtype() for name in names} == {"BF16"}
    assert names == {name for name, _ in model.named_parameters()}


def test_it_fits_into_the_package() -> None:
    assert (BUILTIN / "model.safetensors").stat().st_size <= 12_000_000
    assert (BUILTIN / "draft" / "model.safetensors").stat().st_size <= 2_000_000


def test_every_layer_does_work(model: Any, prompt: torch.Tensor, story: torch.Tensor) -> None:
    """Leave out any one layer and the first 160 greedy tokens are others.

    One pass over the full model's text is enough: where the first choice differs for the first
    time, the text which the smaller model would write differs.
    """
    text = story[:, : prompt.shape[1] + 160]
    written = text[0, prompt.shape[1] :]
    assert len(written) == 160
    layers = model.model.layers
    idle = []
    for left_out in range(NUM_LAYERS):
        model.model.layers = layers[:left_out] + layers[left_out + 1 :]
        with torch.inference_mode():
            choices = model(input_ids=text, use_cache=False).logits[0].argmax(-1)
        if torch.equal(choices[prompt.shape[1] - 1 : -1], written):
            idle.append(left_out)
    model.model.layers = layers
    assert idle == []


def test_it_writes_english_nearly_as_well_as_its_teacher(
    model: Any, tokenizer: Any, stories: list[str]
) -> None:
    bits = bits_per_character(model, tokenizer, stories)
    assert bits <= 1.10 * card_figure("teacher")
    assert bits == pytest.approx(card_figure("model"), abs=0.002)


def test_a_story_ends(model: Any, tokenizer: Any, story: torch.Tensor) -> None:
    assert story.shape[1] < 400
    assert int(story[0, -1]) == tokenizer.eos_token_id == model.generation_config.eos_token_id


def test_the_draft_shares_the_tokenizer() -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (BUILTIN / name).read_bytes() == (BUILTIN / "draft" / name).read_bytes()


def test_the_draft_often_proposes_the_models_token(
    model: Any, draft: Any, tokenizer: Any, stories: list[str]
) -> None:
    same, overlap = draft_acceptance(model, draft, tokenizer, stories[:12])
    assert same > 0.7
    assert overlap > 0.7


def test_a_conversation_is_the_opening_of_a_story(tokenizer: Any) -> None:
    messages = [
        {"role": "system", "content": "Once upon a time "},
        {"role": "user", "content": "there was a cat."},
        {"role": "assistant", "content": "The cat was"},
    ]
    token_ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert token_ids == tokenizer("Once upon a time there was a cat. The cat was")["input_ids"]
    assert token_ids[0] == tokenizer.bos_token_id
