"""What a caller asks for, read and checked before any peer is."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from p2pnode.client.model import ClientModel
from p2pnode.errors import BadRequest, PromptTooLong
from p2pnode.pipeline.configure import Terms
from p2pnode.types import Sampling
from p2pnode.wire.checks import SESSION_BYTES
from p2pnode.wire.pages import names_of

if TYPE_CHECKING:
    from p2pnode.model.chooser import Chooser
    from p2pnode.model.constraint import Constraint

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
    constraint: Constraint | None = None
    """That of ``sampling``, compiled."""
    pools: bool = False
    """Whether it is the mean of the last hidden states that is wanted, and no answer."""

    @property
    def token_ids(self) -> list[int]:
        """All that the answer goes on from."""
        return [*self.prompt_ids, *self.resume_from]

    @property
    def num_left(self) -> int:
        """How many tokens are to come at most."""
        return max(0, self.max_tokens - len(self.resume_from))

    def chooser(self) -> Chooser:
        """For what is chosen on this machine."""
        from p2pnode.model.chooser import Chooser  # heavy: torch

        num_prompt = len(self.prompt_ids)
        return Chooser(self.sampling, num_prompt=num_prompt, constraint=self.constraint)

    def terms(self, model: ClientModel, page_key: bytes) -> Terms:
        """For a session of its own; page_key: shared by those that may use each other's work."""
        page_key = b"" if self.pools else page_key
        return Terms(
            session=os.urandom(SESSION_BYTES),
            spec=model.spec,
            sampling=self.sampling,
            max_tokens=len(self.token_ids) + self.num_left,
            has_local_ends=model.ends is not None,
            page_key=page_key,
            pages=names_of(page_key, self.token_ids),
            num_prompt=len(self.prompt_ids),
            pools=self.pools,
        )


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


async def compiled(model: ClientModel, request: Request) -> Request:
    """With its constraint compiled, if it has one; raises BadConstraint.

    Also where peers will choose: what they would refuse, or stop at, none of them is asked.
    """
    if not request.sampling.constraint:
        return request
    constraint = await model.constraints.compile(request.sampling.constraint, request.resume_from)
    return replace(request, constraint=constraint)


def read_text(model: ClientModel, text: Prompt) -> Request:
    """A text whose hidden states are wanted; raises BadRequest, PromptTooLong."""
    prompt_ids = model.encode(text)
    _room(model, prompt_ids, num_new=0)
    return Request(prompt_ids=prompt_ids, max_tokens=0, sampling=Sampling(), pools=True)


def _room(model: ClientModel, prompt_ids: list[int], *, num_new: int = 1) -> int:
    """How many tokens an answer to it may have."""
    limit, num_tokens = model.spec.max_positions, len(prompt_ids)
    if num_tokens == 0:
        raise BadRequest("the prompt is empty; give at least one character")
    if num_tokens + num_new > limit:
        what = f"the prompt has {num_tokens} tokens"
        raise PromptTooLong(f"{what}, {model.spec.name} holds {limit}; shorten it")
    return limit - num_tokens


def _check_ids(model: ClientModel, name: str, token_ids: Sequence[int]) -> None:
    size = model.spec.vocab_size
    if not all(type(each) is int and 0 <= each < size for each in token_ids):
        raise BadRequest(f"token ids of {name} must be 0 to {size - 1}")
