"""Lines between the lab and its helpers: what is written is read back, and nothing else is read."""

from __future__ import annotations

import math

import pytest

from p2pnode.errors import BadRequest
from p2pnode.lab.wan.emulator import KINDS, Attach, Count, SetLine
from p2pnode.lab.wan.launcher import Launch
from p2pnode.lab.wan.packets import Access, Line
from p2pnode.lab.wan.records import MAX_LINE_BYTES, decode, encode
from p2pnode.lab.wan.worker import KINDS as WORKER_KINDS
from p2pnode.lab.wan.worker import Generate, Join


@pytest.mark.parametrize(
    "record",
    [
        Attach(namespace="x", address="77.1.0.1", access=Access(up_bytes_per_s=5.0)),
        SetLine(sender="77.1.0.1", receiver="77.2.0.1", line=Line(delay_s=0.02, is_silent=True)),
        Count(),
        Launch(module="p2pnode", arguments=("serve", "--layers", "0-8"), namespace="x"),
        Join(join=("a", "b"), home="h", model=None),
        Generate(id=3, prompt_ids=(1, 2, 3), max_tokens=7, temperature=0.5),
    ],
)
def test_a_record_is_read_back_as_it_was(record: object) -> None:
    kinds = {**KINDS, **WORKER_KINDS, "Launch": Launch}
    assert decode(encode(record), kinds) == record


def test_infinite_rates_survive() -> None:
    line = decode(encode(Attach(namespace="x", address="y", access=Access())), KINDS)
    assert line.access.up_bytes_per_s == math.inf


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b"{", "not JSON"),
        (b"[]", "nothing that we know"),
        (b'{"do": "Reboot"}', "nothing that we know"),
        (b'{"do": "Count", "more": 1}', "no 'more'"),
        (b'{"do": "Detach"}', "address"),
        (b'{"do": "Detach", "address": 7}', "address has the wrong type"),
        (b'{"do": "SetLine", "sender": "a", "receiver": "b", "line": 1}', "must be an object"),
        (b'{"do": "SetLine", "sender": "a", "receiver": "b", "line": {"x": 1}}', "no 'x'"),
        (
            b'{"do": "SetLine", "sender": "a", "receiver": "b", "line": {"is_silent": 1}}',
            "is_silent has the wrong type",
        ),
        (
            b'{"do": "SetLine", "sender": "a", "receiver": "b", "line": {"jitter": "odd"}}',
            "jitter must be one of uniform, normal",
        ),
        (b" " * (MAX_LINE_BYTES + 1), "bytes"),
    ],
)
def test_anything_else_is_refused_and_named(line: bytes, what: str) -> None:
    with pytest.raises(BadRequest, match=what):
        decode(line, KINDS)
