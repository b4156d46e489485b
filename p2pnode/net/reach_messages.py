"""What peers say to each other about who can dial whom: five questions, three answers."""

from __future__ import annotations

from p2pnode.types import PeerId
from p2pnode.wire.codec import message

REACH = "/p2pnode/reach/1"


@message("call_back")
class CallBack:
    """Asker to a connected peer: can you dial me where you see me, at these ports?"""

    addresses: tuple[str, ...]
    """Of the asker; only their ports count."""


@message("called_back")
class CalledBack:
    """The answer."""

    reached: tuple[str, ...]
    """Hosts of the asker at which a libp2p listener answered; empty when none did."""


@message("fetch")
class Fetch:
    """Asker to a connected peer: I cannot dial that one; ask it to dial me."""

    wanted: PeerId
    addresses: tuple[str, ...]
    """Of the asker; passed on as the asked one sees the asker."""
    is_hidden: bool
    """Whether nobody can dial the asker from outside: only those at its side need try."""


@message("come")
class Come:
    """To a connected peer, for another: that one wants you, dial it."""

    wanted_by: PeerId
    addresses: tuple[str, ...]


@message("came")
class Came:
    """The answer to both."""

    is_connected: bool
    """Whether the wanted one has a connection to the asker now."""
    is_known: bool
    """Whether it could be asked to dial."""


@message("punch")
class Punch:
    """Asker to a connected peer: nobody can dial us both; have that one dial while I do."""

    wanted: PeerId


@message("meet")
class Meet:
    """To a connected peer, for another: dial that one where I see it; it dials you."""

    wanted_by: PeerId
    addresses: tuple[str, ...]


@message("met")
class Met:
    """The answer to both."""

    is_known: bool
    """Whether the wanted one could be asked (of the wanted one: whether it dials)."""
    addresses: tuple[str, ...] = ()
    """Where the helper sees the wanted one over QUIC; empty when it or the asker is not seen."""
