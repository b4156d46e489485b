"""Text to token ids and back: the tokenizer of a model folder, chat, streaming, stop strings.

Reads ``tokenizer.json`` with the `tokenizers` library, without torch; token ids equal those of
`transformers`. `decoding` is the way back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import tokenizers

from p2pnode.errors import BadRequest, ModelFilesError
from p2pnode.log import escape
from p2pnode.model.chat import ChatTemplate, Message
from p2pnode.model.decoding import Pieces, TextStream
from p2pnode.model.json_file import read_json_if_there, read_text

__all__ = ["TextCodec", "TextStream"]

MAX_TOKENIZER_BYTES = 256 << 20
SPECIAL_TOKENS = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


class TextCodec:
    """The tokenizer of one model. Safe to share between threads and tasks."""

    def __init__(
        self,
        tokenizer: Any,
        *,
        eos_token_ids: frozenset[int],
        chat_template: ChatTemplate | None = None,
    ) -> None:
        """Use `load`; this is for a tokenizer that was built by other means."""
        self._tokenizer = tokenizer
        self.chat_template = chat_template
        """None: `encode_chat` cannot work."""
        self.eos_token_ids = eos_token_ids
        """The answer ends at any of these."""
        self._pieces = Pieces(tokenizer, hidden=eos_token_ids)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the tokenizer of a model folder; raises ModelFilesError."""
        settings = read_json_if_there(folder / "tokenizer_config.json")
        named = _named_tokens(folder, settings)
        tokenizer = _load_tokenizer(folder / "tokenizer.json")
        tokenizer.add_special_tokens([*named.values()])
        return cls(
            tokenizer,
            eos_token_ids=_eos_token_ids(folder, tokenizer, named),
            chat_template=_chat_template(folder, settings, named),
        )

    @property
    def vocab_size(self) -> int:
        """How many token ids there are; the model may have a few more."""
        size: int = self._tokenizer.get_vocab_size()
        return size

    @property
    def has_chat_template(self) -> bool:
        """Whether `encode_chat` can work."""
        return self.chat_template is not None

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt, with the tokens that the model expects around it.

        Raises BadRequest when the text cannot be UTF-8 (a lone surrogate).
        """
        return self._encode(text, add_special_tokens=True)

    def encode_chat(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None = None
    ) -> list[int]:
        """Token ids of a conversation, ready for the answer.

        messages: mappings of ``role`` and ``content``, the oldest first
        tools: what the model may ask to be called; heeded by templates that know tools
        Raises BadRequest when the model has no chat template or its template refuses.
        """
        if self.chat_template is None:
            raise BadRequest("this model has no chat template; use a plain prompt")
        return self._encode(self.chat_template.render(messages, tools), add_special_tokens=False)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of token ids, without special tokens; ids beyond the vocabulary are silent."""
        stream = TextStream(self._pieces, (), ())
        return "".join([*map(stream.push, token_ids), stream.finish()])

    def shown(self, token_id: int) -> str:
        """What one token stands for in the middle of a text; special ones by their names."""
        return self._pieces.shown(token_id)

    def stream(self, prompt_ids: Sequence[int], stops: Sequence[str] = ()) -> TextStream:
        """Decode an answer token by token, as the continuation of its prompt.

        Raises BadRequest when a stop string is empty.
        """
        if isinstance(stops, str) or not all(isinstance(stop, str) and stop for stop in stops):
            raise BadRequest("stop strings must be texts of at least one character")
        return TextStream(self._pieces, prompt_ids, stops)

    def serialized(self) -> str:
        """The tokenizer as the text of a ``tokenizer.json``, with its special tokens."""
        text: str = self._tokenizer.to_str()
        return text

    def _encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            where = f"character {error.start} of the prompt"
            raise BadRequest(f"{where} is a lone surrogate, not text") from None
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return ids


def _load_tokenizer(file: Path) -> Any:
    if not file.exists():
        raise ModelFilesError(
            f"no {file.name} in {file.parent}; with transformers, "
            "AutoTokenizer.from_pretrained(...).save_pretrained(...) writes one"
        )
    text = read_text(file, MAX_TOKENIZER_BYTES)
    try:
        tokenizer = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # noqa: BLE001 - the library raises nothing narrower
        what = escape(str(error))
        raise ModelFilesError(f"{file} is not a tokenizer: {what}; fetch it again") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _named_tokens(folder: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    """The special tokens with a name, e.g. ``bos_token``, as texts."""
    older = read_json_if_there(folder / "special_tokens_map.json")
    named = {}
    for name in (f"{kind}_token" for kind in SPECIAL_TOKENS):
        token = settings.get(name, older.get(name))
        text = token.get("content") if isinstance(token, dict) else token
        if isinstance(text, str) and text:
            named[name] = text
    return named


def _eos_token_ids(folder: Path, tokenizer: Any, named: Mapping[str, str]) -> frozenset[int]:
    """From the first of generation config, config, tokenizer config that says it."""
    config = read_json_if_there(folder / "config.json")
    inner = config.get("text_config")
    sources = (
        read_json_if_there(folder / "generation_config.json"),
        config,
        inner if isinstance(inner, dict) else {},
        {"eos_token_id": tokenizer.token_to_id(named.get("eos_token", ""))},
    )
    said: Any = next((s["eos_token_id"] for s in sources if s.get("eos_token_id") is not None), [])
    ids = said if isinstance(said, list) else [said]
    if not all(type(token_id) is int and token_id >= 0 for token_id in ids):
        raise ModelFilesError(f"eos_token_id of {folder} is not a token id or a list of them")
    return frozenset(ids)


def _chat_template(
    folder: Path, settings: Mapping[str, Any], named: Mapping[str, str]
) -> ChatTemplate | None:
    """The default template: in a file of its own, or in the tokenizer's settings."""
    file = folder / "chat_template.jinja"
    found = read_text(file) if file.exists() else settings.get("chat_template")
    if isinstance(found, list):  # several, by name
        entries = [entry for entry in found if isinstance(entry, dict)]
        found = next((e.get("template") for e in entries if e.get("name") == "default"), None)
    return ChatTemplate(found, named) if isinstance(found, str) else None
