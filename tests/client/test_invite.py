"""A client of a private swarm."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pnode.client.blocking import BlockingClient
from p2pnode.client.client import Client
from p2pnode.errors import BadInvite

INVITE = "p2pnode1-SECRETSECRETSECRET"


async def test_a_client_takes_an_invite_and_does_not_show_it(tmp_path: Path) -> None:
    client = Client(invite=INVITE, folder=tmp_path)
    assert client._config.swarm.invite == INVITE
    assert "SECRET" not in repr(client._config)
    with pytest.raises(BadInvite, match="copy it again") as caught:
        async with client:
            pass
    assert "SECRET" not in str(caught.value)


def test_so_does_the_blocking_one(tmp_path: Path) -> None:
    with pytest.raises(BadInvite, match="no swarm of this home"):
        with BlockingClient(invite="nobody-knows-it", folder=tmp_path):
            pass
