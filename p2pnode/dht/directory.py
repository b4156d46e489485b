"""The seam between the swarm and its records: Kademlia for real, or memory."""

from __future__ import annotations

from typing import Protocol

from p2pnode.types import Announcement


class Directory(Protocol):
    """Where announcements are kept and found. Every wait in it has a deadline."""

    async def publish(self, announcement: Announcement) -> None:
        """Sign a record of ours and store it with its holders.

        Raises BadRecord when it breaks the rules of `dht.records`, or every holder refused it, and
        JoinFailed when no holder could be reached. Cancelling leaves it stored or not.
        """
        ...

    async def announcements(self) -> tuple[Announcement, ...]:
        """The live announcements of the whole swarm, the newest of each peer and model.

        Read from the holders each time, never from a cache. Raises JoinFailed when cut off.
        """
        ...
