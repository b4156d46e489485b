"""`model check` and the check that comes before a block of an unknown model is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from p2pnode.errors import ModelUnsupported
from p2pnode.model import tiny
from p2pnode.model.check import check_family, ensure_supported, quiet_transformers
from p2pnode.model.spec import read_spec


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def save_config(folder: Path, family: str) -> None:
    with quiet_transformers():
        tiny.default_config(family).save_pretrained(folder)


def test_a_folder_is_checked_by_the_shape_of_its_config(tmp_path: Path) -> None:
    save_config(tmp_path, "qwen3")

    check = check_family(str(tmp_path))

    assert (check.family, check.ok, check.reason) == ("qwen3", True, "")
    assert check.max_delta_logit <= 3e-6


def test_a_folder_that_brings_code_is_a_reason_not_an_exception(tmp_path: Path) -> None:
    save_config(tmp_path, "llama")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "m.M"}}))

    check = check_family(str(tmp_path))

    assert not check.ok
    assert "never run" in check.reason


def test_a_family_that_splits_is_supported_and_its_outcome_kept(tmp_path: Path) -> None:
    save_config(tmp_path, "llama")
    spec, cache = read_spec(tmp_path, "tiny", ""), tmp_path / "cache"

    ensure_supported(tmp_path, spec, cache=cache)

    (kept,) = (cache / "checks").iterdir()
    assert json.loads(kept.read_text()) == {"family": "llama", "reason": ""}
    kept.write_text(json.dumps({"reason": "said before"}))
    with pytest.raises(ModelUnsupported, match="tiny cannot be served: said before"):
        ensure_supported(tmp_path, spec, cache=cache)


def test_an_outcome_that_is_illegible_is_found_out_again(tmp_path: Path) -> None:
    save_config(tmp_path, "llama")
    spec, cache = read_spec(tmp_path, "tiny", ""), tmp_path / "cache"
    ensure_supported(tmp_path, spec, cache=cache)
    (kept,) = (cache / "checks").iterdir()
    kept.write_text("{")

    ensure_supported(tmp_path, spec, cache=cache)

    assert json.loads(kept.read_text())["reason"] == ""


def test_a_family_that_does_not_split_is_refused_and_the_refusal_kept(tmp_path: Path) -> None:
    save_config(tmp_path, "ctrl")
    spec, cache = read_spec(tmp_path, "tiny", ""), tmp_path / "cache"

    with pytest.raises(ModelUnsupported, match="tiny cannot be served") as first:
        ensure_supported(tmp_path, spec, cache=cache)
    with pytest.raises(ModelUnsupported) as second:
        ensure_supported(tmp_path, spec, cache=cache)

    assert str(first.value) == str(second.value)
    assert "\n" not in str(first.value)


def test_another_config_is_another_outcome(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for family in ("llama", "qwen3"):
        folder = tmp_path / family
        save_config(folder, family)
        ensure_supported(folder, read_spec(folder, family, ""), cache=cache)

    assert len(list((cache / "checks").iterdir())) == 2
