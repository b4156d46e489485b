"""A lossy coding is served for models that it hardly changes, and for no others."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from p2pnode.errors import BadRequest, ModelUnsupported
from p2pnode.model.accuracy import Accuracy, accuracy
from p2pnode.model.source import ModelFiles, find_model
from p2pnode.model.spec import read_spec
from p2pnode.node.wire_gate import check, ensure_passed, judge
from p2pnode.types import Tensor

GOOD = Accuracy(
    num_tokens=512,
    num_hops=4,
    top1_agreement=0.99,
    mean_kl=0.0004,
    max_delta_logit=0.3,
    logit_deviation=6.0,
)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_the_built_in_model_passes_and_needs_no_outcome_of_a_check(tmp_path: Path) -> None:
    files = find_model(None, cache=tmp_path)
    ensure_passed(files, "int8", cache=tmp_path)
    verdict = check(files, "int8", cache=tmp_path)
    assert verdict.ok
    assert verdict.measured.num_hops == 4
    assert 0 < verdict.measured.mean_kl < 0.002


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({}, ""),
        ({"top1_agreement": 0.9}, "agrees at 90.0%"),
        ({"mean_kl": 0.1}, "divergence 1.0e-01"),
        ({"mean_kl": math.nan}, "divergence nan"),
        ({"max_delta_logit": 4.0}, "0.67 standard deviations"),
        ({"top1_agreement": 0.9, "mean_kl": 0.1}, "90.0%.*divergence"),
    ],
)
def test_each_limit_counts(change: dict[str, Any], complaint: str) -> None:
    verdict = judge(dataclasses.replace(GOOD, **change))
    assert verdict.ok is not bool(complaint)
    assert re.search(complaint, verdict.reason)


def test_what_is_not_changed_is_not_measured_as_different(tmp_path: Path) -> None:
    files = find_model(None, cache=tmp_path)
    spec = read_spec(files.folder, files.name, files.fingerprint)
    text = "Once upon a time there was a tree. " * 12
    measured = accuracy(
        files.folder, spec, dtype="float32", num_hops=2, change=lambda each: each, text=text
    )
    assert (measured.top1_agreement, measured.max_delta_logit) == (1.0, 0.0)
    assert measured.mean_kl == pytest.approx(0.0, abs=1e-6)
    zeroed = accuracy(files.folder, spec, dtype="float32", num_hops=2, change=_zeroed, text=text)
    assert zeroed.top1_agreement < 0.9
    assert not judge(zeroed).ok


def _zeroed(tensor: Tensor) -> Tensor:
    return Tensor(tensor.dtype, tensor.shape, bytearray(tensor.num_bytes))


def test_a_text_that_says_too_little_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="says little"):
        check(find_model(None, cache=tmp_path), "int8", cache=tmp_path, text="Hello.")


def test_another_model_is_served_when_its_check_was_kept_and_passed(tmp_path: Path) -> None:
    builtin = find_model(None, cache=tmp_path)
    files = ModelFiles("other", builtin.folder, "ab" * 32, is_builtin=False)
    ensure_passed(files, "", cache=tmp_path)
    with pytest.raises(ModelUnsupported, match="p2pnode model check --wire int8 other"):
        ensure_passed(files, "int8", cache=tmp_path)
    check(files, "int8", cache=tmp_path)
    ensure_passed(files, "int8", cache=tmp_path)
    (kept,) = (tmp_path / "checks").iterdir()
    kept.write_text('{"reason": "too rough"}')
    with pytest.raises(ModelUnsupported, match=r"other is not served with int8.*: too rough"):
        ensure_passed(files, "int8", cache=tmp_path)
    kept.write_text("{")
    local = dataclasses.replace(files, name=files.folder.name)
    with pytest.raises(ModelUnsupported, match=f"--wire int8 {re.escape(str(files.folder))}"):
        ensure_passed(local, "int8", cache=tmp_path)
