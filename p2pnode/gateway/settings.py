"""Every setting of the gateway and its default."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DEFAULT_HTTP_PORT = 8000


@dataclass(frozen=True, kw_only=True, slots=True)
class GatewaySettings:
    """What the gateway takes from whom, and for how long it waits."""

    keys_file: Path | None = None
    """Where the hashes of API keys are; None, or no such file: whoever
    reaches us may ask."""
    is_local: bool = True
    """Whether only this machine can reach us, so that no other host name can be ours."""
    max_body_bytes: int = 1 << 20
    """A longer request is refused while it is read."""
    body_timeout_s: float = 30.0
    """How long a request's body may take to arrive."""
    send_timeout_s: float = 30.0
    """A reader who takes nothing for so long is gone; the chain is freed."""
    ping_interval_s: float = 15.0
    """A stream that has nothing to say sends a comment, so that proxies keep it open."""
    requests_per_minute: int = 600
    """Per API key (or for all who have none), unless the key says otherwise."""
    concurrent_requests: int = 64
    """The same: how many answers may be in the making."""
    max_embeddings: int = 256
    """Texts in one request for embeddings."""
    resume_for_s: float = 600.0
    """How long an answer that was cut can be resumed."""
    max_resumable: int = 256
    """How many such answers are kept; the oldest go first."""
