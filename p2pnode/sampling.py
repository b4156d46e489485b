"""How the next token is chosen, and what is told of the choice. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

MAX_LOGIT_BIAS = 300
MAX_LOGPROBS = 20
MAX_CONSTRAINT_BYTES = 16 * 1024
MAX_TOKEN_ID = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class AtMost:
    """Beside a field's type: so many items, or bytes of a text, a peer may send in it."""

    num: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is chosen from the logits. Temperature 0 is greedy.

    The noise is counter-based on (seed, position): a seed gives the same text on any chain. In this
    order: repetition penalty, presence and frequency penalty, bias, constraint, temperature, top_k,
    top_p, min_p. Raises ValueError for what is out of range.
    """

    temperature: float = 0.0
    top_k: int = 0
    """Keep the k best; 0 keeps all."""
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    """Of tokens in prompt and answer."""
    seed: int = 0
    presence_penalty: float = 0.0
    """Taken off the logits of tokens that the answer has already, once each."""
    frequency_penalty: float = 0.0
    """The same, as often as the answer has them."""
    logit_bias: Annotated[tuple[tuple[int, float], ...], AtMost(MAX_LOGIT_BIAS)] = ()
    """(token id, what is added to its logit); each id once."""
    num_logprobs: int | None = None
    """Tell how likely each token was to the model, and so many most likely ones; None: nothing."""
    constraint: Annotated[str, AtMost(MAX_CONSTRAINT_BYTES)] = ""
    """A JSON schema that the answer satisfies; empty: none."""

    def __post_init__(self) -> None:
        for name in _FLOATS:
            object.__setattr__(self, name, _number(name, getattr(self, name)))
        for name in _INTS:
            if type(getattr(self, name)) is not int:
                raise ValueError(f"{name} must be an integer")
        for holds, what in self._problems():
            if not holds:
                raise ValueError(what)
        object.__setattr__(self, "logit_bias", tuple(map(_bias, self.logit_bias)))
        if len({token_id for token_id, _ in self.logit_bias}) < len(self.logit_bias):
            raise ValueError("logit_bias names a token twice")
        _check_constraint(self.constraint)

    def _problems(self) -> Iterator[tuple[bool, str]]:
        yield 0.0 <= self.temperature <= 100.0, "temperature must be 0 to 100"
        yield 0 <= self.top_k <= 1 << 24, "top_k must be 0 (off) or more"
        yield 0.0 < self.top_p <= 1.0, "top_p must be above 0 and at most 1"
        yield 0.0 <= self.min_p <= 1.0, "min_p must be 0 to 1"
        yield 0.1 <= self.repetition_penalty <= 10.0, "repetition_penalty must be 0.1 to 10"
        yield 0 <= self.seed < 1 << 63, "seed must be 0 to 2^63 - 1"
        yield -2.0 <= self.presence_penalty <= 2.0, "presence_penalty must be -2 to 2"
        yield -2.0 <= self.frequency_penalty <= 2.0, "frequency_penalty must be -2 to 2"
        num = self.num_logprobs
        is_num = num is None or (type(num) is int and 0 <= num <= MAX_LOGPROBS)
        yield is_num, f"num_logprobs must be 0 to {MAX_LOGPROBS}, or nothing"
        is_few = type(self.logit_bias) is tuple and len(self.logit_bias) <= MAX_LOGIT_BIAS
        yield is_few, f"logit_bias must be a tuple of at most {MAX_LOGIT_BIAS} tokens"

    @property
    def is_greedy(self) -> bool:
        """Whether the best token always wins."""
        return self.temperature == 0.0

    @property
    def penalizes_answer(self) -> bool:
        """Whether tokens of the answer are less (or more) likely to come again."""
        return self.presence_penalty != 0.0 or self.frequency_penalty != 0.0

    @property
    def needs_tokens(self) -> bool:
        """Whether choosing depends on the tokens so far."""
        has_penalty = self.repetition_penalty != 1.0 or self.penalizes_answer
        return has_penalty or bool(self.constraint)

    @property
    def is_plain(self) -> bool:
        """Whether the logits are taken as they are."""
        return not self.needs_tokens and not self.logit_bias


@dataclass(frozen=True, slots=True)
class Chosen:
    """A token that was chosen, and, where that was asked for, what the model thought of it.

    Logprobs are the model's own: natural logarithms of the softmax of its logits in float32, before
    penalties, bias, constraint, temperature and filters.
    """

    token_id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
    """(token id, logprob) of the most likely ones, the best first; of equal ones the lowest id."""


_FLOATS = (
    "temperature",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
)
_INTS = ("top_k", "seed")


def _number(name: str, value: object) -> float:
    if type(value) not in (int, float) or not isinstance(value, int | float):
        raise ValueError(f"{name} must be a number")
    return float(value) if abs(value) < 1e6 else float("inf")  # out of every range


def _bias(pair: object) -> tuple[int, float]:
    if type(pair) is not tuple or len(pair) != 2:
        raise ValueError("logit_bias must be pairs of a token id and a number")
    token_id, bias = pair[0], _number("logit_bias", pair[1])
    if type(token_id) is not int or not 0 <= token_id <= MAX_TOKEN_ID:
        raise ValueError("logit_bias must name tokens by their ids")
    if not -100.0 <= bias <= 100.0:
        raise ValueError("logit_bias must be -100 to 100")
    return token_id, bias


def _check_constraint(constraint: object) -> None:
    if type(constraint) is not str:
        raise ValueError("constraint must be a text")
    try:
        num_bytes = len(constraint.encode())
    except UnicodeEncodeError:
        raise ValueError("constraint has a lone surrogate, which is not text") from None
    if num_bytes > MAX_CONSTRAINT_BYTES:
        raise ValueError(
            f"constraint has {num_bytes} bytes, more than {MAX_CONSTRAINT_BYTES} are not taken"
        )
