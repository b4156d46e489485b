"""What a generation came to: the answer, the chain, and where the time went."""

from __future__ import annotations

from dataclasses import dataclass

from p2pnode.client.events import Done, HopCost, Token, TopLogprob
from p2pnode.client.model import ClientModel
from p2pnode.client.request import Request
from p2pnode.net.links import Links
from p2pnode.pipeline.session import ChainSession
from p2pnode.types import Chain, Chosen
from p2pnode.wire.messages import CONTROL


@dataclass(slots=True)
class Times:
    """When tokens came, on the loop's clock."""

    began: float
    first: float = 0.0
    last: float = 0.0
    stall_s: float = 0.0
    num_tokens: int = 0

    def note(self, now: float) -> None:
        if self.num_tokens:
            self.stall_s = max(self.stall_s, now - self.last)
        else:
            self.first = now
        self.last = now
        self.num_tokens += 1

    @property
    def tokens_per_s(self) -> float:
        took_s = self.last - self.first
        return (self.num_tokens - 1) / took_s if took_s > 0 else 0.0


class Answer:
    """The answer of one generation as it grows: its text, and when it is complete."""

    def __init__(self, model: ClientModel, request: Request, began: float) -> None:
        """Begins with what the caller has; raises BadRequest when a stop string is none."""
        self.times = Times(began)
        self.finish_reason = ""
        """Why it is complete; empty while it is not."""
        self._codec = model.codec
        self._request = request
        self._text = model.codec.stream(request.prompt_ids, request.stop)
        self._pieces: list[str] = []
        self._num_tokens = 0
        for token_id in request.resume_from:
            self._grow(token_id)

    def take(self, chosen: Chosen, now: float) -> Token:
        """Another token, and what the caller is told of it."""
        self.times.note(now)
        self._grow(chosen.token_id)
        return Token(
            position=len(self._request.prompt_ids) + self._num_tokens - 1,
            token_id=chosen.token_id,
            text=self._pieces[-1],
            logprob=chosen.logprob,
            top_logprobs=tuple(
                TopLogprob(token_id, self._codec.shown(token_id), logprob)
                for token_id, logprob in chosen.top
            ),
        )

    def finish(self) -> str:
        """Nothing comes any more: the whole text."""
        self._pieces.append(self._text.finish())
        return "".join(self._pieces)

    def done(self, session: ChainSession, links: Links) -> Done:
        """The last event of a generation."""
        num_prompt = len(self._request.prompt_ids)
        return done(session, links, num_prompt, self.finish(), self.finish_reason, self.times)

    def _grow(self, token_id: int) -> None:
        is_end = token_id in self._codec.eos_token_ids
        self._pieces.append("" if is_end else self._text.push(token_id))
        self._num_tokens += 1
        if is_end or self._text.stopped:
            self.finish_reason = "stop"
        elif self._num_tokens >= self._request.max_tokens:
            self.finish_reason = self.finish_reason or "length"


def done(
    session: ChainSession, links: Links, prompt_tokens: int, text: str, reason: str, times: Times
) -> Done:
    """The last event of a generation."""
    guessed = session.speculation.policy if session.speculation else None
    return Done(
        text=text,
        token_ids=tuple(session.token_ids[prompt_tokens:]),
        prompt_tokens=prompt_tokens,
        cached_tokens=session.num_cached,
        finish_reason=reason,
        chain=session.chain or Chain((), ""),
        failovers=session.failovers,
        hedges=session.hedges,
        guesses_right=guessed.num_right if guessed else 0,
        guesses_wrong=guessed.num_wrong if guessed else 0,
        ttft_s=max(0.0, times.first - times.began),
        tokens_per_s=times.tokens_per_s,
        stall_s=times.stall_s,
        hops=tuple(
            HopCost(
                peer=state.peer,
                layers=state.hop.layers,
                num_steps=state.num_steps,
                queue_s=state.queue_s,
                compute_s=state.compute_s,
                rtt_s=control.rtt_s if control else None,
            )
            for state in session.hops
            for control in [links.get(state.peer, CONTROL)]
        ),
    )
