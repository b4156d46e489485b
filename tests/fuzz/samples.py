"""A good one of every message that there is."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any

from p2pnode.types import LayerRange, PeerId, Sampling, Tensor
from p2pnode.wire.codec import Kind, kinds

PEER = PeerId("12D3KooW" + "A" * 44)
OTHER = PeerId("12D3KooW" + "B" * 44)
NAMED: dict[str, Any] = {
    "session": b"0123456789abcdef",
    "nonce": b"n" * 16,
    "fingerprint": "ab" * 32,
    "numerics": "float32",
    "fault": "compute",
    "held": b"h" * 14,
    "log_id": b"",
    "place": b"",
    "digests": (b"d" * 120,),
    "suspicions": (),
    "layers": LayerRange(0, 9),
    "pages": b"p" * 32,
    "num_layers": 27,
    "token_ids": (5, 6),
    "hidden": None,
    "about": PEER,
    "turn": 1,
    "pools": False,
}
TYPED: dict[Any, Any] = {
    int: 3,
    float: 0.5,
    bool: True,
    str: "text",
    bytes: b"bytes",
    PeerId: PEER,
    LayerRange: LayerRange(0, 9),
    Sampling: Sampling(
        temperature=0.5,
        seed=3,
        presence_penalty=0.5,
        logit_bias=((5, -1.0), (7, 2.0)),
        num_logprobs=2,
        constraint='{"type": "object"}',
    ),
    Tensor: Tensor("int64", (2,), bytes(16)),
}


def messages() -> list[object]:
    """One of each kind, and of some with a tensor one more."""
    made = [_make(kind) for kind in kinds()]
    return [*made, *(_with_rows(each) for each in made if hasattr(each, "entry"))]


def _make(kind: Kind) -> object:
    hints = typing.get_type_hints(kind.cls)
    values = {
        field.name: _value(field.name, hints[field.name]) for field in dataclasses.fields(kind.cls)
    }
    return kind.cls(**values)


def _value(name: str, hint: Any) -> Any:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if name in NAMED and (NAMED[name] is None or _is_a(NAMED[name], options)):
        return NAMED[name]
    (first, *_) = [each for each in options if each is not types.NoneType]
    if typing.get_origin(first) is tuple:
        item = typing.get_args(first)[0]
        if item is str:
            return (f"/ip4/127.0.0.1/tcp/4001/p2p/{PEER}",)
        return (_value("", item),) * 2 if item in TYPED else ()
    return TYPED[first]


def _is_a(value: Any, options: tuple[Any, ...]) -> bool:
    return any(isinstance(value, typing.get_origin(each) or each) for each in options)


def _with_rows(message: Any) -> object:
    return dataclasses.replace(message, entry=Tensor("bfloat16", (2, 64), bytes(256)))
