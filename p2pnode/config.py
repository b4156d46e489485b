"""Every setting and its default, the folders of a home, and the files that list peers.

The only reader of the environment: ``P2PNODE_HOME``. Parts get the numbers they use, not a config.
"""

from __future__ import annotations

import importlib.resources
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import time as ClockTime
from pathlib import Path

from p2pnode.errors import BadRequest, LocalError
from p2pnode.log import escape
from p2pnode.numerics import QUANTS
from p2pnode.types import LayerRange, PeerId

DEFAULT_PORT = 4001
MAX_PEERS_FILE_BYTES = 64 << 10
MAX_ADDRESS_CHARS = 512
PEERS_FILE = "bootstrap_peers.txt"


@dataclass(frozen=True, slots=True)
class Home:
    """The folder that is ours on this machine; nothing is created by asking for a path."""

    folder: Path

    @property
    def keys(self) -> Path:
        """Key files: ``node.key``, ``node-2.key``, ..., ``client.key``; mode 0700."""
        return self.folder / "keys"

    @property
    def cache(self) -> Path:
        """Downloads and sums that can be made again."""
        return self.folder / "cache"

    @property
    def run(self) -> Path:
        """Sockets and addresses of the nodes that run now."""
        return self.folder / "run"

    @property
    def swarms(self) -> Path:
        """One folder for each private swarm: keys, invite, news and last good peers; mode 0700."""
        return self.folder / "swarms"

    @property
    def peers(self) -> Path:
        """The last good peers, to find the swarm again."""
        return self.folder / "peers.json"

    @property
    def gateway_keys(self) -> Path:
        """The hashes of the API keys of this home's gateways; mode 0600."""
        return self.keys / "gateway.json"


def home(folder: Path | None = None) -> Home:
    """The home asked for, else that of ``P2PNODE_HOME``, else ``~/.p2pnode``; absolute."""
    chosen = folder or Path(os.environ.get("P2PNODE_HOME") or "~/.p2pnode")
    try:
        return Home(chosen.expanduser().absolute())
    except RuntimeError:  # no HOME, no such user
        what = f"cannot tell where {escape(str(chosen))} is"
        raise LocalError(f"{what}; set P2PNODE_HOME to a folder of yours") from None


def set_where_unset(name: str, value: str) -> None:
    """Set a variable of libraries that read the environment, unless the user has."""
    os.environ.setdefault(name, value)


def inherited_environment(added: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for a child process: ours, and what is added."""
    return {**os.environ, **(added or {})}


def _default_cache() -> Path:
    return home().cache


@dataclass(frozen=True, kw_only=True, slots=True)
class SwarmConfig:
    """How a participant finds its swarm and is found."""

    home: Home = field(default_factory=home)
    """Where keys, caches and state are kept."""
    key: Path | None = None
    """The key file; None: the first of the home that is free."""
    join: tuple[str, ...] = ()
    """Addresses of peers to join through, each ending in ``/p2p/PEER``; set: joining must
    succeed. Empty: the nodes of this home, the last good peers, ``bootstrap_peers.txt``."""
    invite: str = field(default="", repr=False)
    """Into a private swarm: an invite, a file with one, or the name of a swarm that this home is in
    already. Empty: the public swarm."""
    lan: bool = False
    """Whether to look for nodes of the same network, and, as a node, to show ourselves there."""
    starts_swarm: bool = True
    """Whether to start a swarm of our own when nobody answers; a client never does."""
    host: str = "0.0.0.0"
    """The interface to listen on, IPv4 or IPv6."""
    port: int | None = None
    """TCP and UDP. None: 4001 or the next free one. Set: busy is an error. 0: any."""
    announce: tuple[str, ...] = ()
    """Addresses at which others reach us, instead of those of our interfaces."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeConfig:
    """What a node serves, and its limits."""

    model: str | None = None
    """Hub id or folder; None: the swarm's model, and the built-in one where it has none."""
    layers: LayerRange | None = None
    """The block to serve; None: a bootstrap node, which needs no model."""
    device: str = "auto"
    """``auto`` takes CUDA, XPU, MPS, CPU in this order; also ``cuda:1``."""
    dtype: str = "auto"
    """``float32``, ``bfloat16``, ``float16``; ``auto`` chooses by device and model size."""
    wire: str = ""
    """The lossy coding of hidden states between hops, ``int8``; part of the numerics class."""
    quant: str = ""
    """How the layers' weights are quantised, ``int8`` or ``nf4``; part of the numerics class."""
    cache: Path = field(default_factory=_default_cache)
    """Where downloads and sums are kept."""
    max_sessions: int = 64
    """More are refused, honestly."""
    vram_bytes: int | None = None
    """The most that weights and sessions may take; None: what the device has free."""
    up_bytes_per_s: float = 0.0
    """The uplink, announced for routing; 0: not known, what is measured is announced. Nothing is
    paced by it, but where it is slower than coding hidden states without loss, they are coded."""
    until: ClockTime | None = None
    """When to leave, by the clocks here; None: when told to."""
    pauses_when_busy: bool = False
    """Whether new sessions are refused while others use this machine."""
    drain_within_s: float = 10.0
    """How long sessions have to move to others when we leave."""
    min_session_tokens: int = 2048
    """A node without room for one session of this length (or the model's) does not start."""
    prefill_chunk_tokens: int = 256
    """Longer steps are computed in chunks, so that others' decode steps come through."""
    session_idle_timeout_s: float = 60.0
    """A session that hears nothing for so long is closed and its memory freed."""
    journal_bytes: int = 1 << 30
    """The most that the journal of one session may hold; older outputs are made anew if needed."""
    journals_bytes: int = 4 << 30
    """The same of all sessions together."""
    connect_timeout_s: float = 3.0
    """How long one connection may take."""
    heartbeat_interval_s: float = 0.25
    """How often each control stream is pinged."""
    heartbeat_timeout_s: float = 1.2
    """A peer without an answer for so long is gone."""
    wall_clock: Callable[[], float] = time.time
    """Seconds since the epoch; announcements carry it."""

    def __post_init__(self) -> None:
        _check_positive(self, "max_sessions", "min_session_tokens", "prefill_chunk_tokens")
        if self.quant not in ("", *QUANTS):
            raise BadRequest(f"quant {escape(self.quant, 40)!r} is not one of {', '.join(QUANTS)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientConfig:
    """How a client generates, and how long it waits."""

    swarm: SwarmConfig = field(default_factory=lambda: SwarmConfig(starts_swarm=False))
    """How it finds the swarm."""
    cache: Path = field(default_factory=_default_cache)
    """Where downloads and sums are kept."""
    max_new_tokens: int = 256
    """The length of an answer when the caller names none."""
    prefill_chunk_tokens: int = 512
    """The most of a prompt that travels at a time: in chunks all hops compute at once."""
    keeps_prefixes: bool = True
    """Whether peers may keep what they have computed, for the next prompts that begin alike."""
    connect_timeout_s: float = 3.0
    """How long one connection may take."""
    open_timeout_s: float = 10.0
    """How long a chain may take to be set up."""
    step_timeout_s: float = 30.0
    """The most that a step may take; a session's own history shortens it."""
    step_floor_s: float = 0.2
    """No hop is called silent before it is late by so much."""
    standbys: bool = True
    """Whether to keep a warm standby for each hop, where the swarm has one."""
    mend_timeout_s: float = 60.0
    """How long a broken chain may take to be mended, all attempts together."""
    no_chain_patience_s: float = 5.0
    """How long to look for peers for missing layers before giving up."""
    close_timeout_s: float = 0.5
    """How long to wait for the hops' sums after the last token."""
    heartbeat_interval_s: float = 0.25
    """How often each control stream is pinged."""
    heartbeat_timeout_s: float = 1.2
    """A peer without an answer for so long is gone."""
    gossip_neighbours: int = 4
    """With how many peers it stays in touch, to hear how all are; more hear of a death sooner."""
    max_token_s: float | None = None
    """The longest that a token of the chosen chain may be predicted to take."""
    min_tokens_per_s: float | None = None
    """The least that may be predicted."""
    draft: str = "none"
    """What guesses the next tokens: ``auto``, ``lookup``, ``none``, or a model's folder."""
    explains: bool = False
    """Whether `ChainChosen` tells why that chain was chosen."""
    wall_clock: Callable[[], float] = time.time
    """Seconds since the epoch; announcements carry it."""

    def __post_init__(self) -> None:
        _check_positive(self, "max_new_tokens", "prefill_chunk_tokens", "gossip_neighbours")


def _check_positive(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value < 1:
            raise BadRequest(f"{name} must be at least 1, not {value}")


# --- lists of peers

_ADDRESS = re.compile(
    r"/(ip4|ip6|dns|dns4|dns6)/[0-9A-Za-z.:-]{1,253}"
    r"/(tcp/\d{1,5}|udp/\d{1,5}/quic-v1)(/[0-9A-Za-z./:-]*)?/p2p/([1-9A-HJ-NP-Za-km-z]{1,60})"
)


def read_address(text: str) -> str:
    """Check the address of a peer, as `--join` takes it; returns it without blanks around it.

    ``/ip4/203.0.113.7/tcp/4001/p2p/12D3KooW...``. Raises BadRequest, which says what is wrong.
    """
    address = text.strip()
    found = _ADDRESS.fullmatch(address) if len(address) <= MAX_ADDRESS_CHARS else None
    if found is None:
        shape = "/ip4/HOST/tcp/PORT/p2p/PEER"
        raise BadRequest(f"{escape(address, 80)!r} is not an address like {shape}")
    port = int(found[2].split("/")[1])
    if not 0 < port < 1 << 16:
        raise BadRequest(f"{escape(address, 80)!r}: {port} is not a port")
    try:
        PeerId.parse(found[4])
    except ValueError as error:
        raise BadRequest(f"{escape(address, 80)!r}: {error}") from None
    return address


def read_peers(text: str, source: str) -> tuple[str, ...]:
    """The addresses in a list of peers: one per line, ``#`` begins a comment, no doubles.

    Raises BadRequest, which names ``source`` and the line.
    """
    if len(text) > MAX_PEERS_FILE_BYTES:
        raise BadRequest(f"{source} is longer than {MAX_PEERS_FILE_BYTES} bytes")
    found: dict[str, None] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not (entry := line.partition("#")[0].strip()):
            continue
        try:
            found[read_address(entry)] = None
        except BadRequest as error:
            raise BadRequest(f"{source}, line {number}: {error}") from None
    return tuple(found)


def read_join(text: str) -> tuple[str, ...]:
    """What ``--join`` takes: an address, or a file of them; raises BadRequest."""
    if text.startswith("/") and not Path(text).is_file():
        return (read_address(text),)
    return read_peers(_read_file(Path(text)), escape(text))


def public_peers(folder: Path) -> tuple[str, ...]:
    """The public swarm: ``bootstrap_peers.txt`` of this folder, else the one that we came with.

    Raises BadRequest when the file is not a list of peers.
    """
    packaged = Path(str(importlib.resources.files("p2pnode"))) / PEERS_FILE
    for file in (folder / PEERS_FILE, packaged):
        if file.is_file():
            return read_peers(_read_file(file), escape(str(file)))
    return ()


def _read_file(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(MAX_PEERS_FILE_BYTES + 1).decode()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise BadRequest(f"{escape(str(file))} is no list of peers: {reason}") from None
