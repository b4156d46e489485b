"""What may be asked of a choice; everything else is refused where it enters."""

from __future__ import annotations

import math
from typing import Any

import pytest

from p2pnode.types import Sampling


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": 101}, "temperature"),
        ({"temperature": True}, "temperature must be a number"),
        ({"top_p": "1"}, "top_p must be a number"),
        ({"top_k": 1.0}, "top_k must be an integer"),
        ({"top_k": -1}, "top_k"),
        ({"seed": True}, "seed must be an integer"),
        ({"seed": -1}, "seed"),
        ({"presence_penalty": 2.1}, "presence_penalty"),
        ({"frequency_penalty": -math.inf}, "frequency_penalty"),
        ({"frequency_penalty": 10**400}, "frequency_penalty"),
        ({"logit_bias": {5: 1.0}}, "logit_bias"),
        ({"logit_bias": ((5, 101.0),)}, "logit_bias must be -100 to 100"),
        ({"logit_bias": ((5, math.nan),)}, "logit_bias must be -100 to 100"),
        ({"logit_bias": ((5.0, 1.0),)}, "by their ids"),
        ({"logit_bias": ((-1, 1.0),)}, "by their ids"),
        ({"logit_bias": ((1 << 31, 1.0),)}, "by their ids"),
        ({"logit_bias": ((5, 1.0, 2.0),)}, "pairs"),
        ({"logit_bias": ((5, 1.0), (5, 2.0))}, "twice"),
        ({"logit_bias": tuple((n, 1.0) for n in range(301))}, "at most 300"),
        ({"num_logprobs": 21}, "num_logprobs"),
        ({"num_logprobs": True}, "num_logprobs"),
        ({"constraint": b"{}"}, "constraint must be a text"),
        ({"constraint": "\ud800"}, "lone surrogate"),
        ({"constraint": "ä" * 8193}, "16386 bytes"),
    ],
)
def test_what_is_out_of_range_is_refused(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        Sampling(**changes)


def test_whole_numbers_are_numbers() -> None:
    sampling = Sampling(temperature=1, presence_penalty=-2, logit_bias=((3, 4),))
    assert type(sampling.temperature) is type(sampling.presence_penalty) is float
    assert sampling.logit_bias == ((3, 4.0),)
    assert type(sampling.logit_bias[0][1]) is float


def test_who_chooses_needs_the_tokens_only_where_they_matter() -> None:
    assert not Sampling(temperature=1.0, num_logprobs=3, logit_bias=((3, 4.0),)).needs_tokens
    for needy in ("repetition_penalty", "presence_penalty", "frequency_penalty"):
        changes: dict[str, Any] = {needy: 1.5}
        assert Sampling(**changes).needs_tokens
    assert Sampling(constraint="{}").needs_tokens
    assert Sampling(num_logprobs=3, temperature=0.5).is_plain
    assert not Sampling(logit_bias=((3, 4.0),)).is_plain
