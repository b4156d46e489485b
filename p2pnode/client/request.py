"""What a caller asks for, read and checked before any peer is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from p2pnode.client.model import ClientModel
from p2pnode.errors import BadRequest, PromptTooLong
from p2pnode.types import Sampling

Prompt = str | Sequence[int] | Sequence[Mapping[str, str]]
"""Text, token ids, or chat messages (mappings with ``role`` and ``content``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One generation."""

    prompt_ids: list[int]
    resume_from: tuple[int, ...] = ()
    """The beginning of the answer, which the caller has already."""
    max_tokens: int
    """Of the whole answer."""
    sampling: Sampling
    stop: Sequence[str] = ()

    @property
    def token_ids(self) -> list[int]:
        """All that the answer goes on from."""
        return [*self.prompt_ids, *self.resume_from]

    @property
    def num_left(self) -> int:
        """How many tokens are to come at most."""
        return max(0, self.max_tokens - len(self.resume_from))


def read_request(
    model: ClientModel,
    prompt: Prompt,
    *,
    max_tokens: int | None,
    most_tokens: int,
    sampling: Sampling | None,
    stop: Sequence[str],
    resume_from: Sequence[int],
) -> Request:
    """Check everything; raises BadRequest, PromptTooLong.

    most_tokens: of an answer whose caller does not say ``max_tokens``
    """
    prompt_ids, sampling = model.encode(prompt), sampling or Sampling()
    room = _room(model, prompt_ids)
    if max_tokens is not None and max_tokens < 1:
        raise BadRequest(f"max_tokens must be at least 1, not {max_tokens}")
    _check_ids(model, "resume_from", resume_from)
    _check_ids(model, "logit_bias", [token_id for token_id, _ in sampling.logit_bias])
    return Request(
        prompt_ids=prompt_ids,
        resume_from=tuple(resume_from),
        max_tokens=min(most_tokens if max_tokens is None else max_tokens, room),
        sampling=sampling,
        stop=stop,
    )


def _room(model: ClientModel, prompt_ids: list[int]) -> int:
    """How many tokens an answer to it may have."""
    limit, num_tokens = model.spec.max_positions, len(prompt_ids)
    if num_tokens == 0:
        raise BadRequest("the prompt is empty; give at least one character")
    if num_tokens >= limit:
        what = f"the prompt has {num_tokens} tokens"
        raise PromptTooLong(f"{what}, {model.spec.name} holds {limit}; shorten it")
    return limit - num_tokens


def _check_ids(model: ClientModel, name: str, token_ids: Sequence[int]) -> None:
    size = model.spec.vocab_size
    if not all(type(each) is int and 0 <= each < size for each in token_ids):
        raise BadRequest(f"token ids of {name} must be 0 to {size - 1}")
