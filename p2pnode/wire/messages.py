"""Every message between peers, by traffic class. `python -m p2pnode.wire` prints this as a table.

One hop of a session is named by (session, layer): ``session`` is 16 random bytes that only the
chain's members know, ``layer`` the first layer that the hop runs (one peer may be two hops).

Positions count tokens: a step at ``position`` feeds the tokens ``position, position + 1, ...``.
The **epoch** numbers the chain's configurations. `Open` and `Reroute` set it; a step or an answer
of an older one is dropped. The **branch** counts, within an epoch, how often guesses turned out
wrong: the first step of a new one replaces all that is held from its position on, and what is still
under way of an older one is dropped. ``send_from`` says below which position outputs are computed
and journalled but not sent on: that is how a replacement is rebuilt without disturbing its
successors, and how a standby, which sends nothing at all, keeps up with the hop that it stands by
for.
"""

from __future__ import annotations

from typing import Annotated

from p2pnode.sampling import AtMost
from p2pnode.types import LayerRange, PeerId, Sampling, Tensor
from p2pnode.wire.checks import SESSION_BYTES as SESSION_BYTES
from p2pnode.wire.checks import check_pages, check_session, check_token_ids
from p2pnode.wire.codec import message
from p2pnode.wire.logprobs import MAX_LOGPROBS_BYTES
from p2pnode.wire.notices import Draining as Draining
from p2pnode.wire.notices import Ping as Ping
from p2pnode.wire.notices import Pong as Pong
from p2pnode.wire.notices import Warm as Warm

PROTOCOL_VERSION = 1
CHAIN = "/p2pnode/chain/1"
"""Traffic class of sessions: everything about steps, in the order it was sent."""
CONTROL = "/p2pnode/control/1"
"""Traffic class of small frames that must never wait behind tensors: heartbeats, address book."""

FAULT_KINDS = ("unreachable", "gap", "compute", "input", "constraint", "ring", "unknown", "closed")


@message("hello")
class Hello:
    """Both, first frame of every stream; anything else first closes the stream."""

    version: int
    software: str
    nonce: bytes
    credentials: bytes
    """What proves membership of a private swarm; empty in a public one."""


@message("open")
class Open:
    """Client to each hop: hold a place for this session."""

    session: bytes
    epoch: int
    fingerprint: str
    numerics: str
    layers: LayerRange
    max_tokens: int
    """The most tokens this session will ever hold; admission counts them."""
    previous: PeerId | None
    """Whose steps to accept; None is the client itself."""
    next: PeerId | None
    """Where outputs go; None is the client itself."""
    next_addresses: tuple[str, ...]
    send_from: int
    sampling: Sampling | None
    """To the last hop: apply head and sampling, answer token ids. None: answer hidden."""
    token_ids: Tensor | None
    """int64 [tokens]: the tokens so far, when sampling needs them."""
    pages: bytes = b""
    """Names of the prompt's pages (`wire.pages`): begin behind those that you have computed for an
    earlier session of mine."""
    num_prompt: int = 0
    """Where the answer begins, for what sampling does with its tokens."""
    pools: bool = False
    """To the last hop: answer nothing but the mean of all rows after the final norm."""
    ring: PeerId | None = None
    """To the last hop: hand each token to this one, too. To the first: who it is that does so."""
    ring_addresses: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_session(self.session)
        if self.pools and self.sampling is not None:
            raise ValueError("open.pools and open.sampling exclude each other")
        check_pages(self.pages)
        if not self.layers:
            raise ValueError("open.layers is empty")
        check_token_ids(self.token_ids)


@message("opened")
class Opened:
    """Hop to client: the place is held, the next hop is connected."""

    session: bytes
    layer: int
    epoch: int
    position: int = 0
    """So many tokens of the pages that you have named I hold already."""


@message("refused")
class Refused:
    """Hop to client: an honest no, and when to ask again."""

    session: bytes
    layer: int
    epoch: int
    reason: str
    retry_after_s: float


@message("step")
class Step:
    """Client or hop to the next hop: run these tokens through your block."""

    session: bytes
    layer: int
    epoch: int
    position: int
    """Tokens already in your cache; truncate to it if you hold more."""
    branch: int = 0
    num_guessed: int = 0
    """So many tokens before the end of this step, of it and of earlier ones, are guesses."""
    entry: Tensor
    """int64 token ids [tokens] for a hop that embeds, else hidden [tokens, hidden_size]."""

    def __post_init__(self) -> None:
        check_session(self.session)


@message("cut")
class Cut:
    """Client to each hop: guesses were wrong. Drop what you hold, and what waits, from here on.

    Ahead of the step that replaces it, which takes its time through the chain.
    """

    session: bytes
    layer: int
    epoch: int
    branch: int
    """The new one."""
    position: int


@message("result")
class Result:
    """Hop to client: what came out at ``position`` and after it.

    From the last hop; and from one whose next hop it cannot reach: then the client carries it on.
    """

    session: bytes
    layer: int
    """The first layer of the hop that says so."""
    epoch: int
    branch: int = 0
    position: int
    token_ids: tuple[int, ...]
    """One per position; empty when the client keeps the head."""
    hidden: Tensor | None
    """[tokens, hidden_size] for a client that keeps the head; float32 [hidden_size]: a mean."""
    logprobs: Annotated[bytes, AtMost(MAX_LOGPROBS_BYTES)] = b""
    """Of the tokens, where sampling asks for them (`wire.logprobs`)."""


@message("progress")
class Progress:
    """Hop to client: how far it is, and what the session has cost it. Never waited for."""

    session: bytes
    layer: int
    epoch: int
    branch: int = 0
    position: int
    """Cumulative: outputs below it are computed and journalled."""
    replays_from: int
    """The first position whose output the journal still holds."""
    num_steps: int
    queue_s: float
    """Sum over the session's steps; so is ``compute_s``."""
    compute_s: float


@message("reroute")
class Reroute:
    """Client to a hop that stays: the chain has changed."""

    session: bytes
    layer: int
    epoch: int
    position: int
    """Forget whatever you hold from here on."""
    previous: PeerId | None
    next: PeerId | None
    next_addresses: tuple[str, ...]
    send_from: int
    """Replay your journal to the next hop from here."""
    token_ids: Tensor | None
    """int64 [tokens]: all tokens, to a last hop that stood by, when sampling needs them."""
    ring: PeerId | None = None
    """As in `Open`."""
    ring_addresses: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_token_ids(self.token_ids)


@message("rerouted")
class Rerouted:
    """Hop to client: done; so many tokens I hold."""

    session: bytes
    layer: int
    epoch: int
    position: int
    replays_from: int


@message("shadow")
class Shadow:
    """Client to hop: the standbys of your neighbours, all of them; None where there is none."""

    session: bytes
    layer: int
    epoch: int
    previous: PeerId | None
    """Its steps count as those of the previous hop."""
    next: PeerId | None
    """Copy your journal to it, lazily."""
    next_addresses: tuple[str, ...]
    position: int
    """What the next hop's standby holds already."""


@message("hedge")
class Hedge:
    """Client to hop: the next hop is late. Bring its standby up to date now, and tell it this.

    To a standby, from the hop before it or from the client: send on your output at ``position``,
    as if you were the hop.
    """

    session: bytes
    layer: int
    epoch: int
    position: int


@message("fault")
class Fault:
    """Hop to client: I cannot go on with this session, and why."""

    session: bytes
    layer: int
    epoch: int
    fault: str
    """One of `FAULT_KINDS`."""
    blamed: PeerId | None
    """The peer at fault, when it is another one."""
    detail: str

    def __post_init__(self) -> None:
        if self.fault not in FAULT_KINDS:
            raise ValueError(f"fault {self.fault[:20]!r} is not one of {', '.join(FAULT_KINDS)}")


@message("close")
class Close:
    """Client to each hop: free everything now, also what is running or waiting."""

    session: bytes
    layer: int
    pages: bytes = b""
    """Names of the session's pages that may be kept for my next ones."""

    def __post_init__(self) -> None:
        check_pages(self.pages)


@message("closed")
class Closed:
    """Hop to client: freed; this is what the session has cost."""

    session: bytes
    layer: int
    num_steps: int
    queue_s: float
    compute_s: float
