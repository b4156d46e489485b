"""Which tokens may come next, so that an answer satisfies a JSON schema (llguidance).

A schema comes from strangers. It is compiled on a thread of its own, within bounds of the library
for the grammar, for the lexer, and for each step; what is beyond them is an error that says so.
The state follows the answer that it is asked about: where that differs from the last one, it goes
back. So it is right after a wrong guess, on a standby, and in an answer that goes on.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import llguidance
import numpy as np
import numpy.typing as npt

from p2pnode.errors import BadConstraint, ComputeFailed, ModelFilesError
from p2pnode.log import escape
from p2pnode.model.text import TextCodec

CAUSE = "constraint"
"""Of a `ComputeFailed` for which neither a device nor a peer is to blame."""
COMPILE_WITHIN_S = 1.0
MAX_KEPT = 8
"""Compiled schemas that are kept for the next session."""
WHITESPACE = r"[ \n\r\t]{0,24}"
"""Between the parts of a JSON text: bounded, or a model could write nothing else for ever."""
LIMITS = {
    "max_items_in_row": 1_000,
    "initial_lexer_fuel": 500_000,
    "step_lexer_fuel": 100_000,
    "step_max_items": 25_000,
    "max_lexer_states": 10_000,
    "max_grammar_size": 50_000,
}
"""About 10 ms to compile, 7 ms for a step, 20 MB: see the library's `LLParserLimits`."""

Allowed = npt.NDArray[np.bool_]


class Constraint:
    """One session's. Used by one thread at a time."""

    def __init__(self, matcher: Any, eos_token_ids: frozenset[int]) -> None:
        self._matcher = matcher
        self._eos = eos_token_ids
        self._read: list[int] = []

    def allowed(self, answer: Sequence[int]) -> Allowed:
        """What may follow the answer so far; its end, exactly when it satisfies the schema.

        returns: [tokens of the tokenizer, rounded up] bool
        Raises ComputeFailed when the answer is none that may be, or a bound is reached.
        """
        is_over = self._follow(answer)
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        allowed = np.unpackbits(bits, bitorder="little").astype(np.bool_)
        if is_over:
            allowed[:] = False
        may_end = is_over or self._matcher.is_accepting()
        for token_id in self._eos:
            if token_id < len(allowed):
                allowed[token_id] = may_end
        if not allowed.any():
            raise ComputeFailed("no token of this model can go on as the constraint says", CAUSE)
        return allowed

    def _follow(self, answer: Sequence[int]) -> bool:
        """Bring the state to the answer so far; whether that has its end already."""
        end = next((at for at, each in enumerate(answer) if each in self._eos), len(answer))
        text = list(answer[:end])
        same = _num_same(self._read, text)
        if same < len(self._read):
            self._matcher.rollback(len(self._read) - same)
        if same < len(text):
            self._matcher.consume_tokens(text[same:])
        self._check()
        self._read = text
        return end < len(answer)

    def _check(self) -> None:
        if self._matcher.is_error():
            what = f"the constraint cannot be followed: {_said(self._matcher)}"
            raise ComputeFailed(what, CAUSE)


class Constraints:
    """Compiles schemas for one model, on a thread that `close` ends."""

    def __init__(self, folder: Callable[[], Path | None]) -> None:
        """folder: the model's, whose tokenizer is read when it is first needed"""
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="constraints")
        self._tokenizer: Any = None
        self._eos: frozenset[int] = frozenset()
        self._kept: OrderedDict[str, Any] = OrderedDict()

    def close(self) -> None:
        """End the thread; what it compiles goes on to its end."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def compile(self, schema: str, answer: Sequence[int] = ()) -> Constraint:
        """A fresh constraint; raises BadConstraint, which says why, and ModelFilesError.

        answer: what there is of it already, which must be as the schema says
        """
        loop = asyncio.get_running_loop()
        if self._tokenizer is None:  # large ones take longer than a schema may
            await loop.run_in_executor(self._thread, self._load)
        try:
            async with asyncio.timeout(COMPILE_WITHIN_S):
                return await loop.run_in_executor(self._thread, self._compile, schema, answer)
        except TimeoutError:
            raise BadConstraint(
                f"the constraint was not compiled within {COMPILE_WITHIN_S:g} s; simplify it"
            ) from None

    def _load(self) -> None:
        if self._tokenizer is not None:
            return
        folder = self._folder()
        if folder is None:
            raise ModelFilesError("constraints need the model's tokenizer, which is not here")
        codec = TextCodec.load(folder)
        if not codec.eos_token_ids:
            raise BadConstraint("this model has no end of text, so no answer could be complete")
        self._eos = codec.eos_token_ids
        try:
            self._tokenizer = llguidance.LLTokenizer(
                codec.serialized(), eos_token=sorted(codec.eos_token_ids)
            )
        except (ValueError, RuntimeError) as error:
            what = f"constraints cannot be followed with this tokenizer: {_line(error)}"
            raise ModelFilesError(what) from None

    def _compile(self, schema: str, answer: Sequence[int]) -> Constraint:
        matcher = self._kept.get(schema)
        if matcher is None:
            matcher = self._matcher(schema)
            self._kept[schema] = matcher
            if len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(schema)
        constraint = Constraint(matcher.deep_copy(), self._eos)
        try:
            constraint.allowed(answer)
        except ComputeFailed as error:
            raise BadConstraint(str(error)) from None
        return constraint

    def _matcher(self, schema: str) -> Any:
        """A compiled schema; raises BadConstraint."""
        options = {"whitespace_pattern": WHITESPACE}
        try:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(schema, overrides=options)
        except ValueError as error:
            raise BadConstraint(f"the constraint is no JSON schema: {_line(error)}") from None
        limits = llguidance.LLParserLimits(**LIMITS, verbose_errors=False)
        matcher = llguidance.LLMatcher(self._tokenizer, grammar, log_level=0, limits=limits)
        if matcher.is_error():
            raise BadConstraint(f"the constraint cannot be used: {_said(matcher)}")
        return matcher


def _said(matcher: Any) -> str:
    """What is wrong with it, for people; it may quote the schema."""
    return _line(matcher.get_error()) or "no token may begin it"


def _line(what: object) -> str:
    return escape(" ".join(str(what).replace("<non-verbose/>", "").split()))[:200]


def _num_same(one: list[int], other: list[int]) -> int:
    """How many tokens two answers have in common, from the first on."""
    if one == other[: len(one)]:
        return len(one)
    pairs = zip(one, other, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
