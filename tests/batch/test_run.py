"""A batch loses no answer and gives none twice, wherever it was killed."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from p2pnode.batch.answers import Answers
from p2pnode.batch.run import Progress, run_batch
from p2pnode.errors import BadRequest
from p2pnode.gateway.direct import answered
from tests.gateway.swarms import gateway_on, until

pytestmark = pytest.mark.virtual_time

PROMPT = [1, 403, 407, 261]


def write(file: Path, num: int, **body: Any) -> Path:
    lines = [
        {"custom_id": f"job-{i}", "method": "POST", "url": "/v1/completions", "body": body}
        for i in range(num)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


class Asker:
    """Answers everything, and counts."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def __call__(self, url: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        await asyncio.sleep(0.1)
        self.asked.append(url)
        return 200, {"id": "x", "text": "\n"}


async def batch(requests: Path, answers: Path, ask: Any, at_once: int = 3) -> Progress:
    return await run_batch(
        requests, answers, ask, at_once=at_once, on_progress=lambda progress: None
    )


@pytest.mark.parametrize("cut", [0, 1, 50, 10**6])
async def test_a_killed_batch_goes_on_where_it_was(cut: int, tmp_path: Path) -> None:
    requests, out = write(tmp_path / "in.jsonl", 10), tmp_path / "out.jsonl"
    with Answers(out) as answers:
        for number in range(4):
            line = json.dumps({"custom_id": f"job-{number}", "response": {}}).encode() + b"\n"
            await answers.add(f"job-{number}", line)
    data = out.read_bytes()
    out.write_bytes(data[: max(0, len(data) - cut)])
    whole = out.read_bytes().count(b"\n")
    ask = Asker()
    progress = await batch(requests, out, ask)
    assert len(ask.asked) == 10 - whole
    assert (progress.done, progress.total, progress.failed) == (10, 10, 0)
    assert sorted(line["custom_id"] for line in read(out)) == [f"job-{i}" for i in range(10)]
    again = Asker()
    await batch(requests, out, again)
    assert again.asked == []


async def test_two_batches_do_not_write_one_file(tmp_path: Path) -> None:
    requests, out = write(tmp_path / "in.jsonl", 1), tmp_path / "out.jsonl"
    with Answers(out), pytest.raises(BadRequest, match="written by another"):
        await batch(requests, out, Asker())


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ("[" * 100_000, "not JSON"),
        ('{"custom_id": 1, "method": "POST", "url": "/", "body": {}}', "custom_id"),
        ('{"custom_id": "a", "method": "GET", "url": "/", "body": {}}', "method"),
        ('{"custom_id": "a", "method": "POST", "url": "/", "body": []}', "body"),
        ('{"custom_id": "job-0", "method": "POST", "url": "/", "body": {}}', "two requests"),
    ],
)
async def test_a_wrong_line_is_found_before_anything_is_asked(
    line: str, what: str, tmp_path: Path
) -> None:
    requests = write(tmp_path / "in.jsonl", 3)
    requests.write_text(requests.read_text() + line + "\n")
    ask = Asker()
    with pytest.raises(BadRequest, match=what):
        await batch(requests, tmp_path / "out.jsonl", ask)
    assert ask.asked == []


async def test_a_file_of_something_else_is_not_written_to(tmp_path: Path) -> None:
    requests, out = write(tmp_path / "in.jsonl", 1), tmp_path / "diary.txt"
    out.write_text("dear diary\n")
    with pytest.raises(BadRequest, match="not an answer of a batch"):
        await batch(requests, out, Asker())
    assert out.read_text() == "dear diary\n"


async def test_answers_wait_for_a_swarm_that_has_lost_layers(
    tmp_path: Path, tiny: Path, cache: Path
) -> None:
    body: dict[str, Any] = {"model": "tiny", "prompt": PROMPT, "max_tokens": 40, "temperature": 0}
    requests, out = write(tmp_path / "in.jsonl", 3, **body), tmp_path / "out.jsonl"
    async with gateway_on(tiny, cache, "0-3", "4-8") as asked:
        expected = (await asked.post("/v1/completions", **body)).json()["choices"][0]["text"]
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(batch(requests, out, partial(answered, asked.gateway)))
            await until(lambda: asked.tokens > 60, 60.0)
            asked.swarm.kill(asked.swarm.nodes[1])
            await asyncio.sleep(20.0)
            await asked.swarm.start("4-8")
        assert running.result().failed == 0
    texts = [line["response"]["body"]["choices"][0]["text"] for line in read(out)]
    assert texts == [expected] * 3


async def test_what_is_wrong_with_a_request_is_its_answer(
    tmp_path: Path, tiny: Path, cache: Path
) -> None:
    requests = write(tmp_path / "in.jsonl", 1, model="tiny", prompt=PROMPT, colour="blue")
    out = tmp_path / "out.jsonl"
    async with gateway_on(tiny, cache) as asked:
        progress = await batch(requests, out, partial(answered, asked.gateway))
    (line,) = read(out)
    assert progress.failed == 1
    assert line["response"]["status_code"] == 400
    assert line["response"]["body"]["error"]["param"] == "colour"
