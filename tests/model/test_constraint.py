"""Constraints: what may follow, whatever was asked before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from p2pnode.errors import BadConstraint, ComputeFailed, ModelFilesError
from p2pnode.model.constraint import Constraints
from p2pnode.model.text import TextCodec
from tests.support.models import BUILTIN
from tests.support.tokenizers import byte_level, save

PERSON = json.dumps(
    {
        "type": "object",
        "properties": {"age": {"type": "integer"}},
        "required": ["age"],
        "additionalProperties": False,
    }
)
END = 2


def spelled(codec: TextCodec, text: str) -> list[int]:
    """Token ids of exactly this text: no blank before it, as tokenizers like to have."""
    names = {codec.shown(token_id): token_id for token_id in range(3, codec.vocab_size)}
    ids = []
    while text:
        longest = max(filter(text.startswith, filter(None, names)), key=len)
        ids.append(names[longest])
        text = text[len(longest) :]
    return ids


async def test_the_end_is_allowed_exactly_when_the_answer_is_complete() -> None:
    constraints = Constraints(lambda: BUILTIN)
    codec = TextCodec.load(BUILTIN)
    constraint = await constraints.compile(PERSON)
    text = '{"age": 12}'
    ids = spelled(codec, text)
    ends = [bool(constraint.allowed(ids[:num])[END]) for num in range(len(ids) + 1)]
    constraints.close()
    assert ends == [False] * len(ids) + [True]
    assert constraint.allowed(ids).sum() == 1
    assert constraint.allowed([*ids, END]).nonzero()[0].tolist() == [END]
    assert constraint.allowed([*ids, END, 99]).nonzero()[0].tolist() == [END]


async def test_it_follows_any_answer_that_it_is_asked_about() -> None:
    constraints = Constraints(lambda: BUILTIN)
    codec = TextCodec.load(BUILTIN)
    lines = [spelled(codec, text) for text in ('{"age": 12}', '{ "age" : -7 }', '{"age":1')]
    asked = [line[:num] for line in lines for num in range(len(line) + 1)]
    fresh = [(await constraints.compile(PERSON)).allowed(line).tolist() for line in asked]
    one = await constraints.compile(PERSON)
    for shuffled in (range(len(asked)), reversed(range(len(asked))), range(3, len(asked), 5)):
        for index in shuffled:
            assert one.allowed(asked[index]).tolist() == fresh[index]
    constraints.close()


async def test_blanks_come_to_an_end() -> None:
    constraints = Constraints(lambda: BUILTIN)
    codec = TextCodec.load(BUILTIN)
    constraint = await constraints.compile(PERSON)
    blank = next(n for n in range(512) if codec.shown(n) == " ")
    line = spelled(codec, "{")
    while constraint.allowed(line)[blank]:
        line.append(blank)
    constraints.close()
    assert 2 < len(line) < 40


async def test_what_the_schema_does_not_allow_is_an_error_that_is_nobodys() -> None:
    constraints = Constraints(lambda: BUILTIN)
    constraint = await constraints.compile(PERSON)
    with pytest.raises(ComputeFailed, match="cannot be followed") as caught:
        constraint.allowed([99])
    assert caught.value.cause == "constraint"
    with pytest.raises(BadConstraint, match="cannot be followed"):
        await constraints.compile(PERSON, [99])
    (await constraints.compile(PERSON)).allowed([])
    constraints.close()


async def test_a_model_without_an_end_or_a_tokenizer_has_no_constraints(tmp_path: Path) -> None:
    endless = save(tmp_path / "endless", byte_level(), eos_token=None)
    (endless / "config.json").write_text('{"model_type": "llama"}')
    for constraints, error in (
        (Constraints(lambda: endless), BadConstraint),
        (Constraints(lambda: tmp_path / "empty"), ModelFilesError),
        (Constraints(lambda: None), ModelFilesError),
    ):
        with pytest.raises(error):
            await constraints.compile(PERSON)
        constraints.close()


async def test_other_kinds_of_tokenizers_do_as_well(tmp_path: Path) -> None:
    folder = save(tmp_path / "bytes", byte_level())
    constraints, codec = Constraints(lambda: folder), TextCodec.load(folder)
    constraint = await constraints.compile(json.dumps({"const": "Grüße 🦓"}))
    line: list[int] = []
    while not (row := constraint.allowed(line))[1]:
        line.append(int(row.nonzero()[0][-1]))
    constraints.close()
    assert json.loads(codec.decode(line)) == "Grüße 🦓"
