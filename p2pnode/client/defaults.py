"""What a client is made of where its caller does not say."""

from __future__ import annotations

from pathlib import Path

from p2pnode.config import ClientConfig, SwarmConfig, home, read_join
from p2pnode.swarm.network import Network


def default_config(
    join: tuple[str, ...], folder: Path | None, draft: str, invite: str = ""
) -> ClientConfig:
    """A member of the swarm of that home, or of the one that is joined."""
    addresses = tuple(address for each in join for address in read_join(each))
    place = home(folder)
    swarm = SwarmConfig(home=place, join=addresses, invite=invite, starts_swarm=False)
    return ClientConfig(swarm=swarm, cache=place.cache, draft=draft)


def real_network(config: ClientConfig) -> Network:
    """p2pd and Kademlia; imported when they are needed."""
    from p2pnode.swarm.p2p_network import client_network

    return client_network(config)
