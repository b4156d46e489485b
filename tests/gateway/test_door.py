"""Who may come in, how often, how many at a time, and with how much."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from p2pnode.gateway.keys import KeyFile
from tests.gateway.swarms import gateway_on

SHORT: dict[str, Any] = {"prompt": [1, 403, 407], "max_tokens": 2, "temperature": 0}

pytestmark = pytest.mark.virtual_time


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


async def test_with_a_key_file_only_its_keys_come_in(
    tmp_path: Path, tiny: Path, cache: Path
) -> None:
    file = KeyFile(tmp_path / "keys.json")
    key, secret = file.add("alice")
    async with gateway_on(tiny, cache, keys_file=file.path) as asked:
        without = await asked.post("/v1/completions", **SHORT)
        wrong = await asked.post("/v1/completions", headers=bearer("p2pnode-guess"), **SHORT)
        right = await asked.post("/v1/completions", headers=bearer(secret), **SHORT)
        figures = await asked.http.get("/metrics")
        ping = await asked.http.get("/ping")
        file.remove(key.id)
        removed = await asked.post("/v1/completions", headers=bearer(secret), **SHORT)
    assert (without.status_code, without.json()["error"]["code"]) == (401, "missing_api_key")
    assert without.headers["www-authenticate"] == "Bearer"
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, "invalid_api_key")
    assert (right.status_code, figures.status_code, ping.status_code) == (200, 401, 200)
    assert removed.status_code == 401, "the last key is gone, and the door is not open"


async def test_a_key_file_that_others_can_read_lets_nobody_in(
    tmp_path: Path, tiny: Path, cache: Path
) -> None:
    file = KeyFile(tmp_path / "keys.json")
    _, secret = file.add("alice")
    file.path.chmod(0o644)
    async with gateway_on(tiny, cache, keys_file=file.path) as asked:
        answer = await asked.post("/v1/completions", headers=bearer(secret), **SHORT)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "KeyFileError")
    assert str(tmp_path) not in answer.text


async def test_each_key_has_its_own_rate_which_refills(
    tmp_path: Path, tiny: Path, cache: Path
) -> None:
    file = KeyFile(tmp_path / "keys.json")
    slow = bearer(file.add("slow", requests_per_minute=2)[1])
    other = bearer(file.add("other")[1])
    async with gateway_on(tiny, cache, keys_file=file.path) as asked:
        first = [(await asked.http.get("/v1/models", headers=slow)).status_code for _ in range(2)]
        third = await asked.http.get("/v1/models", headers=slow)
        others = await asked.http.get("/v1/models", headers=other)
        await asyncio.sleep(int(third.headers["retry-after"]))
        later = await asked.http.get("/v1/models", headers=slow)
    assert first == [200, 200]
    assert (third.status_code, third.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert (others.status_code, later.status_code) == (200, 200)


async def test_no_more_requests_at_a_time_than_allowed(tiny: Path, cache: Path) -> None:
    body = {**SHORT, "max_tokens": 20}
    async with gateway_on(tiny, cache, concurrent_requests=2) as asked:
        async with asyncio.TaskGroup() as tasks:
            asking = [tasks.create_task(asked.post("/v1/completions", **body)) for _ in range(3)]
        codes = sorted(task.result().status_code for task in asking)
        after = await asked.post("/v1/completions", **body)
    assert codes == [200, 200, 429]
    assert after.status_code == 200
    refused = next(task.result() for task in asking if task.result().status_code == 429)
    assert refused.headers["retry-after"] == "1"


async def test_a_body_is_counted_while_it_is_read(tiny: Path, cache: Path) -> None:
    async def endless() -> Any:
        for _ in range(100):
            yield b" " * 1000
            sent.append(1000)

    sent: list[int] = []
    json = {"Content-Type": "application/json"}
    async with gateway_on(tiny, cache, max_body_bytes=4000) as asked:
        answer = await asked.http.post("/v1/completions", content=endless(), headers=json)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert sum(sent) < 10_000


BAD: list[tuple[bytes, str]] = [
    (b"{", "invalid_json"),
    (b"[" * 100_000, "invalid_json"),
    (b'{"model": "tiny", "prompt": "\xff"}', "invalid_json"),
    (b'{"model": "tiny", "prompt": "\\ud800"}', "invalid_json"),
    (b'{"model": "tiny", "temperature": NaN}', "invalid_json"),
    (b"[]", "invalid_value"),
    (b"", "invalid_json"),
]


async def test_what_is_no_json_object_is_refused(tiny: Path, cache: Path) -> None:
    json = {"Content-Type": "application/json"}
    async with gateway_on(tiny, cache) as asked:
        for content, code in BAD:
            answer = await asked.http.post("/v1/completions", content=content, headers=json)
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, code), content
        form = await asked.http.post("/v1/completions", content=b"{}")
    assert form.json()["error"]["code"] == "bad_content_type"


FOREIGN: list[tuple[dict[str, str], str]] = [
    ({"Host": "attacker.example"}, "foreign_host"),
    ({"Host": "127.0.0.1.attacker.example:8000"}, "foreign_host"),
    ({"Host": ""}, "foreign_host"),
    ({"Host": "[["}, "foreign_host"),
    ({"Origin": "https://attacker.example"}, "foreign_origin"),
    ({"Origin": "null"}, "foreign_origin"),
]


async def test_web_pages_of_others_cannot_ask_where_there_are_no_keys(
    tiny: Path, cache: Path
) -> None:
    async with gateway_on(tiny, cache) as asked:
        for headers, code in FOREIGN:
            answer = await asked.post("/v1/completions", headers=headers, **SHORT)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, code), headers
        own = {"Origin": "http://127.0.0.1:8000"}
        page = await asked.post("/v1/completions", headers=own, **SHORT)
        cors = await asked.http.options("/v1/completions", headers=own)
    assert page.status_code == 200
    assert not [name for name in cors.headers if name.startswith("access-control")]
