"""Every error of p2pnode, grouped by whose fault it is; retry by type, never by `except Exception`.

``PeerError``: the peer's fault, try another one. ``BadRequest``: the caller's, never retried.
``LocalError``: this machine's (files, ports, memory). ``NoChain``, ``JoinFailed``: nobody's.
The class name is the ``kind`` that ``--json`` prints.
"""

from __future__ import annotations

from p2pnode.types import LayerRange, PeerId


class P2PNodeError(Exception):
    """Base of all: its text is one line that says what, who, and what to do."""

    @property
    def kind(self) -> str:
        """The name that scripts see."""
        return type(self).__name__


class WireError(P2PNodeError):
    """Bytes that are not a message of ours; names the kind and the field."""


class BadRecord(P2PNodeError):
    """A directory record that a holder or a reader must not believe."""


class BadWarrant(P2PNodeError):
    """Grants, claims or revocations of a private swarm that nobody must believe."""


class NotAdmitted(P2PNodeError):
    """A member of our private swarm that may not do this, or is one no more; ``why`` is a code."""

    def __init__(self, what: str, why: int) -> None:
        super().__init__(what)
        self.why = why


class Unwelcome(P2PNodeError):
    """A member of our private swarm says that it does not let us in, and why."""


# --- the peer's fault: try another peer


class PeerError(P2PNodeError):
    """Something a peer did or failed to do."""

    def __init__(self, peer: PeerId, what: str) -> None:
        super().__init__(f"peer {peer.short}: {what}")
        self.peer = peer
        self.what = what
        """Without its name."""


class PeerTimeout(PeerError):
    """Slow: a deadline passed."""


class PeerLost(PeerError):
    """Its stream ended without END, or it cannot be reached."""


class PeerForeign(PeerLost):
    """It is of another swarm than we, or no p2pnode at all."""


class PeerDenied(PeerLost):
    """It is of our private swarm, and does not let us in; or we do not let it in."""


class PeerRefused(PeerError):
    """An honest "no room"; no penalty at all."""

    def __init__(self, peer: PeerId, what: str, retry_after_s: float = 0.0) -> None:
        super().__init__(peer, what)
        self.retry_after_s = retry_after_s


class PeerMisbehaved(PeerError):
    """It broke the protocol, or sent values that cannot be."""


class PeerFault(PeerError):
    """It said that it cannot go on with a session (memory, a gap, its own next hop)."""


# --- nobody's fault


class NoChain(P2PNodeError):
    """Some layers have no live peer; carries them, and the text made so far."""

    def __init__(self, what: str, missing: tuple[LayerRange, ...] = ()) -> None:
        super().__init__(what)
        self.missing = missing
        self.text = ""
        self.token_ids: tuple[int, ...] = ()


class JoinFailed(P2PNodeError):
    """No bootstrap peer answered; ``tried`` says of each why."""

    def __init__(self, what: str = "", tried: tuple[P2PNodeError, ...] = ()) -> None:
        super().__init__(what)
        self.tried = tried


class ClockSkew(JoinFailed):
    """Two clocks differ too much for records to be believed."""


class NotMember(JoinFailed):
    """Those that answered are of another swarm, or do not let us into theirs."""


# --- the caller's fault: never retried


class BadRequest(P2PNodeError):
    """The request itself cannot be served; retrying it is useless."""


class BadLayerRange(BadRequest):
    """Not FIRST-LAST, or outside the model."""


class BadConstraint(BadRequest):
    """The JSON schema is none, has parts that are not supported, or is too complex."""


class PromptTooLong(BadRequest):
    """The prompt (and the tokens asked for) exceed what the chain or the model can hold."""


class BadInvite(BadRequest):
    """Not an invite, a damaged or expired one, or one that does not allow what is asked."""


class UnknownModel(BadRequest):
    """No such folder, hub id, or model in the swarm."""


class SeveralModels(BadRequest):
    """The swarm serves several models and the caller named none."""


# --- this machine's


class LocalError(P2PNodeError):
    """Something on this machine is in the way."""


class ModelFilesError(LocalError):
    """Weights, config or tokenizer are missing, corrupted or of a form that we do not read."""


class ModelUnsupported(LocalError):
    """The family cannot be split exactly, or would need foreign code to run."""


class DoesNotFit(LocalError):
    """A block or a session needs more memory than there is; the text holds the sum."""


class ComputeFailed(LocalError):
    """The device failed in mid-step, or produced values that are not finite.

    cause: ``input``, ``output`` (not finite), ``out-of-memory``, ``constraint`` or ``device``.
    """

    def __init__(self, what: str, cause: str = "device") -> None:
        super().__init__(what)
        self.cause = cause


class KeyFileError(LocalError):
    """A key file of another format, with loose permissions, or in use."""


class PortBusy(LocalError):
    """The port asked for is taken."""


class DiskFull(LocalError):
    """No room left where we must write."""


class DaemonDied(LocalError):
    """The p2pd child process ended."""
