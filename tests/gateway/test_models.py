"""What can be asked for, and how what cannot is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gateway.swarms import gateway_on

pytestmark = pytest.mark.virtual_time


async def test_the_swarms_model_is_listed_and_shown(tiny: Path, cache: Path) -> None:
    async with gateway_on(tiny, cache) as asked:
        listed = (await asked.http.get("/v1/models")).json()
        assert [model["id"] for model in listed["data"]] == ["tiny"]
        shown = await asked.http.get("/v1/models/tiny")
        assert shown.json() == listed["data"][0]


async def test_errors_of_every_kind_have_openais_shape(tiny: Path, cache: Path) -> None:
    async with gateway_on(tiny, cache) as asked:
        unknown = await asked.http.get("/v1/models/gpt-5")
        assert unknown.status_code == 404
        assert unknown.json()["error"]["code"] == "model_not_found"
        assert unknown.json()["error"]["param"] == "model"
        nowhere = await asked.http.get("/v2")
        assert (nowhere.status_code, nowhere.json()["error"]["code"]) == (404, "not_found")
        wrong = await asked.http.post("/v1/models")
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_allowed")
        assert wrong.headers["allow"] == "GET"
