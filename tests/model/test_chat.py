"""Chats are encoded as transformers does it, whatever template a model brings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from p2pnode.errors import BadRequest, ModelFilesError
from p2pnode.model.source import find_model
from p2pnode.model.text import TextCodec
from tests.support.tokenizers import CHATML, byte_level, save


@pytest.fixture(scope="module")
def builtin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return find_model(None, cache=tmp_path_factory.mktemp("cache")).folder


CHAT: list[Any] = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "two  <b>cafés</b> {{ 1 }}"},
    {"role": "assistant", "content": "Yes.\n"},
    {"role": "user", "content": "why?"},
]


def transformers_chat(folder: Path) -> list[int]:
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    ids: list[int] = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True)["input_ids"]
    return ids


def test_chat_is_encoded_as_by_transformers(builtin: Path) -> None:
    assert TextCodec.load(builtin).encode_chat(CHAT) == transformers_chat(builtin)


@pytest.mark.parametrize("place", ["settings", "file", "several"])
def test_a_template_is_found_wherever_models_keep_it(tmp_path: Path, place: str) -> None:
    found: Any = {"settings": CHATML, "several": [{"name": "default", "template": CHATML}]}
    save(tmp_path, byte_level(), **({"chat_template": found[place]} if place in found else {}))
    if place == "file":
        (tmp_path / "chat_template.jinja").write_text(CHATML)
    assert TextCodec.load(tmp_path).encode_chat(CHAT) == transformers_chat(tmp_path)


def test_a_template_has_the_functions_that_transformers_gives(tmp_path: Path) -> None:
    template = (
        "{% set ns = namespace(found=false, self=1) %}{% for m in messages %}"
        "{% if m.role == 'user' %}{% set ns.found = true %}{% break %}{% endif %}{% endfor %}"
        "{{ messages | tojson(indent=1) }}{{ ns.found }}{{ dict(a=1) | tojson }}"
        "{{ strftime_now('%Y') | length }}{{ eos_token }}{{ pad_token is defined }}"
    )
    save(tmp_path, byte_level(), chat_template=template)
    assert TextCodec.load(tmp_path).encode_chat(CHAT) == transformers_chat(tmp_path)


def test_a_model_without_a_template_refuses_chat(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="no chat template"):
        TextCodec.load(save(tmp_path, byte_level())).encode_chat(CHAT)


@pytest.mark.parametrize(
    "messages",
    [
        [],
        "hello",
        ["hello"],
        [{"role": "user"}],
        [{"role": "user", "content": "x", "nickname": "y"}],
        [{"role": "user", "content": None}],
        [{"role": "", "content": "x"}],
        [{"role": 1, "content": "x"}],
    ],
    ids=repr,
)
def test_messages_that_are_not_role_and_content_are_refused(builtin: Path, messages: Any) -> None:
    with pytest.raises(BadRequest):
        TextCodec.load(builtin).encode_chat(messages)


def test_a_refusal_of_the_template_is_the_callers_fault(tmp_path: Path) -> None:
    template = "{{ raise_exception('roles must \x1b[31malternate') }}"
    codec = TextCodec.load(save(tmp_path, byte_level(), chat_template=template))
    with pytest.raises(BadRequest, match=r"says: roles must \\x1b"):
        codec.encode_chat(CHAT)


@pytest.mark.parametrize(
    "template",
    [
        "{% for %}",
        "{{ nothing.at.all }}",
        "{{ messages[99].content.x }}",
        "{{ 1 / 0 }}",
        "{% include 'config.json' %}",
        "{{ messages.__class__.__mro__[1].__subclasses__() }}",
        "{{ ''.__class__ }}{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ messages.append({}) }}",
        "{% set ns = namespace(_x=1) %}",
        "{% set ns = namespace() %}{% set ns._x = 1 %}",
        "{{ 'x' * 10**15 }}",
        "{% for a in range(10000) %}{{ 'x' * 10000 }}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ '%c' | format(-1) }}",
    ],
    ids=lambda template: template[:40],
)
def test_a_broken_or_hostile_template_is_an_error_of_the_model(
    tmp_path: Path, template: str
) -> None:
    codec = TextCodec.load(save(tmp_path, byte_level(), chat_template=template))
    with pytest.raises(ModelFilesError, match="chat template"):
        codec.encode_chat(CHAT)
