"""Token ids to text, one token at a time, so that streamed text never has to be taken back.

Each token adds bytes or whole characters, independent of its neighbours. Differs from `tokenizers`
in runs of bytes that are not UTF-8: there, one bad byte spoils the good characters beside it;
here, only itself.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


class TextStream:
    """The text of an answer, piece by piece.

    What `push` and `finish` return, put together, is the text that the answer adds to the prompt,
    cut before the stop string that is complete first. Held back: the bytes of half a character,
    and what may be the beginning of a stop string.
    """

    def __init__(self, pieces: Pieces, prompt_ids: Sequence[int], stops: Sequence[str]) -> None:
        self._pieces = pieces
        self._stops = tuple(stops)
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._has_text = False
        self._held = ""
        self.stopped = False
        """Whether a stop string was met; then nothing more comes."""
        # A prompt may end within a character, which has at most 4 bytes, of 4 tokens.
        for token_id in prompt_ids[-4:]:
            self._decode(token_id)
        self._has_text = self._has_text or not all(map(pieces.is_hidden, prompt_ids))

    def push(self, token_id: int) -> str:
        """Take the next token of the answer; returns the text that is certain by now."""
        return "" if self.stopped else self._release(self._decode(token_id))

    def finish(self) -> str:
        """The answer is complete: the rest of the text."""
        text = "" if self.stopped else self._release(self._utf8.decode(b"", final=True))
        rest, self._held = ("" if self.stopped else self._held), ""
        return text + rest

    def _decode(self, token_id: int) -> str:
        if self._pieces.is_hidden(token_id):
            return ""
        piece = self._pieces.piece(token_id, is_first=not self._has_text)
        self._has_text = True
        if isinstance(piece, bytes):
            return self._utf8.decode(piece)
        return self._utf8.decode(b"", final=True) + piece

    def _release(self, text: str) -> str:
        text = self._held + text
        end, start = min(
            ((at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0),
            default=(0, 0),
        )
        if end:
            self.stopped, self._held = True, ""
            return text[:start]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of the text are the beginning of the stop string."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)


class Pieces:
    """What each token adds to a text: bytes (perhaps parts of characters) or whole characters."""

    def __init__(self, tokenizer: Any, *, hidden: Iterable[int]) -> None:
        added = tokenizer.get_added_tokens_decoder()
        self._tokenizer = tokenizer
        self._hidden = {id for id, token in added.items() if token.special} | set(hidden)
        decoder = json.loads(tokenizer.decoder.__getstate__()) if tokenizer.decoder else None
        self._is_byte_level = _has_type(decoder, "ByteLevel")
        self._has_byte_tokens = _has_type(decoder, "ByteFallback")
        self._byte_of = _byte_level_alphabet() if self._is_byte_level else {}
        self._known: dict[int, str | bytes] = {}
        self._anchor = next(filter(self._is_plain_word, range(tokenizer.get_vocab_size())), None)

    def is_hidden(self, token_id: int) -> bool:
        """Whether the token is not text: special, the end, or beyond the vocabulary."""
        if not 0 <= token_id < 1 << 32:
            return True
        return token_id in self._hidden or self._tokenizer.id_to_token(token_id) is None

    def piece(self, token_id: int, *, is_first: bool) -> str | bytes:
        """What the token adds after other text, or as the first (where a space may be dropped)."""
        if is_first:
            return self._make(token_id, None)
        if token_id not in self._known:
            self._known[token_id] = self._make(token_id, self._anchor)
        return self._known[token_id]

    def shown(self, token_id: int) -> str:
        """What the token adds after other text, or its name where that is no text."""
        if not 0 <= token_id < 1 << 32 or self._tokenizer.id_to_token(token_id) is None:
            return ""
        if self.is_hidden(token_id):
            return str(self._tokenizer.id_to_token(token_id))
        piece = self.piece(token_id, is_first=False)
        return piece.decode("utf-8", "replace") if isinstance(piece, bytes) else piece

    def _make(self, token_id: int, anchor: int | None) -> str | bytes:
        token: str = self._tokenizer.id_to_token(token_id)
        if self._is_byte_level:
            known = [self._byte_of.get(char) for char in token]
            plain = bytes(byte for byte in known if byte is not None)
            return plain if len(plain) == len(token) else token.encode()
        if self._has_byte_tokens and (byte := BYTE_TOKEN.fullmatch(token)):
            is_dropped = anchor is None and not self._decode([token_id])
            return b"" if is_dropped else bytes.fromhex(byte[1])
        if anchor is None:
            return self._decode([token_id])
        # Next to another token, because decoders drop the space that begins a text.
        return self._decode([anchor, token_id])[len(self._decode([anchor])) :]

    def _is_plain_word(self, token_id: int) -> bool:
        if self._is_byte_level or self.is_hidden(token_id):
            return False
        token: str = self._tokenizer.id_to_token(token_id)
        return token.isascii() and token.isalnum() and self._decode([token_id]) == token

    def _decode(self, token_ids: list[int]) -> str:
        text: str = self._tokenizer.decode(token_ids, skip_special_tokens=False)
        return text


def _has_type(decoder: Any, name: str) -> bool:
    if isinstance(decoder, Mapping):
        return decoder.get("type") == name or _has_type([*decoder.values()], name)
    return isinstance(decoder, list) and any(_has_type(part, name) for part in decoder)


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's: visible Latin-1 characters stand for themselves, the other bytes for U+0100 on."""
    shown = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in shown]
    alphabet = {chr(byte): byte for byte in shown}
    return alphabet | {chr(0x100 + index): byte for index, byte in enumerate(others)}
