"""Token ids equal those of transformers; streamed text equals the whole text, cut at a stop."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models
from transformers import AutoTokenizer

from p2pnode.errors import BadRequest, ModelFilesError
from p2pnode.model.source import find_model
from p2pnode.model.text import TextCodec
from tests.support.tokenizers import STORY, byte_level, metaspace, save, word_piece


@pytest.fixture(scope="module")
def builtin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return find_model(None, cache=tmp_path_factory.mktemp("cache")).folder


@pytest.fixture(scope="module", params=["builtin", "byte level", "metaspace", "word piece"])
def folder(
    request: pytest.FixtureRequest, builtin: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    if request.param == "builtin":
        return builtin
    make = {"byte level": byte_level, "metaspace": metaspace, "word piece": word_piece}
    return save(tmp_path_factory.mktemp("tokenizer"), make[request.param]())


@pytest.fixture(scope="module")
def codec(folder: Path) -> TextCodec:
    return TextCodec.load(folder)


@pytest.fixture(scope="module")
def reference(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


TEXTS = st.one_of(
    st.text(max_size=40).filter(lambda text: text.isprintable()),
    st.text("Oncetwaz ,.\n\t🦓é€“", max_size=60),
    st.sampled_from(["", " ", "\n", STORY, " leading", "trailing ", "<|end|>", "<s>", "</s> x"]),
)


@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
def test_token_ids_are_those_of_transformers(codec: TextCodec, reference: Any, text: str) -> None:
    ids = codec.encode(text)
    assert ids == reference(text).input_ids
    expected = reference.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert codec.decode(ids) == expected


def cut(text: str, stops: Sequence[str]) -> str:
    """Cut before the stop string whose end comes first; of those, the longest."""
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    return text[: min(ends)[1]] if ends else text


def streamed(codec: TextCodec, prompt: list[int], answer: list[int], stops: list[str]) -> list[str]:
    stream = codec.stream(prompt, stops)
    pieces = [stream.push(token_id) for token_id in answer]
    return [*pieces, stream.finish()]


@settings(max_examples=100, deadline=None)
@given(data=st.data(), prompt=TEXTS, stops=st.lists(st.text("aent .", min_size=1, max_size=4)))
def test_streamed_text_is_what_the_answer_adds_to_the_prompt(
    codec: TextCodec, data: st.DataObject, prompt: str, stops: list[str]
) -> None:
    ids = data.draw(st.lists(st.integers(0, codec.vocab_size + 5), max_size=40))
    prompt_ids = codec.encode(prompt)
    whole = codec.decode([*prompt_ids, *ids])
    before = codec.decode(prompt_ids)
    if not whole.startswith(before):  # the prompt's last token was half a character
        return
    assert "".join(streamed(codec, prompt_ids, ids, stops)) == cut(whole[len(before) :], stops)


def test_one_space_that_begins_a_text_is_dropped_however_it_is_spelled(builtin: Path) -> None:
    codec = TextCodec.load(builtin)
    whole = tokenizers.Tokenizer.from_file(str(builtin / "tokenizer.json"))
    for tokens in itertools.product(["<0x20>", "\u2581", "\u2581t", "he"], repeat=3):
        ids = [token_id for token in tokens if (token_id := whole.token_to_id(token)) is not None]
        assert len(ids) == 3 and codec.decode(ids) == whole.decode(ids)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_what_is_valid_decodes_as_the_tokenizers_library_has_it(
    codec: TextCodec, reference: Any, data: st.DataObject
) -> None:
    ids = data.draw(st.lists(st.integers(0, codec.vocab_size - 1), max_size=30))
    expected = reference.backend_tokenizer.decode(ids, skip_special_tokens=True)
    if "\ufffd" not in expected:
        assert codec.decode(ids) == expected


def test_the_answer_keeps_the_space_that_joins_it_to_the_prompt(builtin: Path) -> None:
    codec = TextCodec.load(builtin)
    prompt, both = codec.encode("Once upon"), codec.encode("Once upon a time")
    assert both[: len(prompt)] == prompt
    assert "".join(streamed(codec, prompt, both[len(prompt) :], [])) == " a time"
    assert codec.decode(both) == "Once upon a time"


@pytest.mark.parametrize("make", [byte_level, None], ids=["byte level", "byte tokens"])
def test_no_half_character_is_ever_shown(make: Any, builtin: Path, tmp_path: Path) -> None:
    codec = TextCodec.load(save(tmp_path, make()) if make else builtin)
    prompt, ids = codec.encode("a"), codec.encode("a🦓🙂")
    pieces = streamed(codec, prompt, ids[len(prompt) :], [])
    assert [piece for piece in pieces if piece] == ["🦓", "🙂"]


def test_a_prompt_may_end_within_a_character(builtin: Path) -> None:
    codec = TextCodec.load(builtin)
    ids = codec.encode("a🦓")
    assert "".join(streamed(codec, ids[:-2], [*ids[-2:], *ids[1:2]], [])) == "🦓 a"


@pytest.mark.parametrize("bad", ["<0xFF>", "<0xC3>"])
def test_a_bad_byte_spoils_only_itself(builtin: Path, bad: str) -> None:
    codec = TextCodec.load(builtin)
    bad_id = tokenizers.Tokenizer.from_file(str(builtin / "tokenizer.json")).token_to_id(bad)
    assert bad_id is not None
    ids = codec.encode("a€")
    assert codec.decode([*ids, bad_id, *ids[1:]]) == "a€\ufffd a€"
    assert codec.decode([*ids, bad_id]) == "a€\ufffd"


@settings(max_examples=300, deadline=None)
@given(
    pieces=st.lists(st.text("abc", max_size=3), max_size=15),
    stops=st.lists(st.text("abc", min_size=1, max_size=5), max_size=4),
)
@example(pieces=["ab", "c", "d"], stops=["abcd", "bc"])
@example(pieces=["abcab", "cabd"], stops=["abcabd"])
def test_where_a_stop_cuts_does_not_depend_on_the_tokens(
    pieces: list[str], stops: list[str]
) -> None:
    words = {word: number for number, word in enumerate(sorted({*pieces} - {""}))}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(words or {"x": 0}, unk_token="x"))
    tokenizer.decoder = decoders.Fuse()
    codec = TextCodec(tokenizer, eos_token_ids=frozenset())
    stream = codec.stream([], stops)
    shown = ""
    for piece in filter(None, pieces):
        shown += stream.push(words[piece])
    shown += stream.finish()
    assert shown == cut("".join(pieces), stops)
    assert stream.stopped == any(stop in "".join(pieces) for stop in stops)
    assert stream.push(0) == "" or not stream.stopped


def test_text_is_held_back_only_while_it_may_be_a_stop(builtin: Path) -> None:
    codec = TextCodec.load(builtin)
    prompt, ids = codec.encode("he"), codec.encode("he END EN")
    stream = codec.stream(prompt, ["ENX"])
    shown = "".join(stream.push(token_id) for token_id in ids[len(prompt) :])
    assert shown == " END " and not stream.stopped
    assert stream.finish() == "EN"


def test_nothing_comes_after_a_stop(builtin: Path) -> None:
    codec = TextCodec.load(builtin)
    stream = codec.stream([], ["time"])
    ids = codec.encode("Once upon a time, there")
    assert "".join(map(stream.push, ids)) == "Once upon a "
    assert stream.stopped and stream.push(ids[1]) == "" and stream.finish() == ""


def test_special_tokens_and_unknown_ids_are_silent(builtin: Path) -> None:
    codec = TextCodec.load(builtin)
    ids = codec.encode("two")
    assert codec.decode([0, 1, 2, *ids, 2, 1 << 20, 1 << 40, -1]) == "two"


@pytest.mark.parametrize("stops", [[""], ["a", ""], "text"])
def test_an_empty_stop_string_is_refused(builtin: Path, stops: Any) -> None:
    with pytest.raises(BadRequest, match="stop strings"):
        TextCodec.load(builtin).stream([], stops)


def test_a_lone_surrogate_is_refused(builtin: Path) -> None:
    with pytest.raises(BadRequest, match="character 2"):
        TextCodec.load(builtin).encode("ab\udc80")


def test_a_tokenizer_file_has_the_last_word_on_what_begins_a_text(tmp_path: Path) -> None:
    save(tmp_path, byte_level(), bos_token="<|start|>", add_bos_token=True, add_eos_token=True)
    expected = AutoTokenizer.from_pretrained(tmp_path)("two").input_ids
    assert TextCodec.load(tmp_path).encode("two") == expected


def test_truncation_and_padding_of_the_file_are_ignored(tmp_path: Path) -> None:
    tokenizer = byte_level()
    plain = tokenizer.encode(STORY).ids
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=10)
    codec = TextCodec.load(save(tmp_path, tokenizer))
    assert codec.encode(STORY) == plain
    assert len(codec.encode("a")) == 1


# --- files


def test_the_ends_of_text_come_from_the_first_file_that_names_them(tmp_path: Path) -> None:
    save(tmp_path, byte_level())
    assert TextCodec.load(tmp_path).eos_token_ids == {1}
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [7, 1]}')
    assert TextCodec.load(tmp_path).eos_token_ids == {1, 7}
    (tmp_path / "generation_config.json").unlink()
    (tmp_path / "config.json").write_text('{"text_config": {"eos_token_id": 5}}')
    assert TextCodec.load(tmp_path).eos_token_ids == {5}
    (tmp_path / "config.json").write_text("{}")
    assert TextCodec.load(tmp_path).eos_token_ids == {1}
    (tmp_path / "tokenizer_config.json").unlink()
    assert TextCodec.load(tmp_path).eos_token_ids == frozenset()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", b"{"),
        ("tokenizer.json", b'{"model": {"type": "Nothing"}}'),
        ("tokenizer.json", b"\xff\xfe"),
        ("tokenizer_config.json", b"[1]"),
        ("tokenizer_config.json", b"[" * 100_000),
        ("generation_config.json", b"nothing"),
        ("generation_config.json", b'{"eos_token_id": "2"}'),
        ("generation_config.json", b'{"eos_token_id": [true]}'),
        ("chat_template.jinja", b"\xff"),
    ],
)
def test_corrupted_files_are_an_error_that_names_them(
    tmp_path: Path, name: str, content: bytes
) -> None:
    save(tmp_path, byte_level())
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelFilesError, match=name if b"eos" not in content else "eos_token_id"):
        TextCodec.load(tmp_path)


def test_a_missing_tokenizer_is_an_error_that_says_how_to_make_one(tmp_path: Path) -> None:
    save(tmp_path, byte_level())
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ModelFilesError, match="save_pretrained"):
        TextCodec.load(tmp_path)
