"""`model check`: a family splits exactly, or one line says what is in the way.

A tiny random model is saved, split into 1 to n blocks by the same code that serves, and compared
with transformers' own unsplit model: prefill, chunks, decode, truncation, and sessions together.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.utils import logging as transformers_logging

from p2pnode.errors import ModelUnsupported, P2PNodeError
from p2pnode.model import tiny
from p2pnode.model.block import Block, Work
from p2pnode.model.families import CODE_ERRORS, one_line
from p2pnode.model.skeleton import build
from p2pnode.model.spec import read_config, read_spec
from p2pnode.types import LayerRange, ModelSpec

log = logging.getLogger(__name__)

CHECK_VERSION = 1
"""Part of the cache key: raise it when the code that is checked changes."""

TOLERANCE = 3e-6
"""Largest |delta logit| in float32, for logits of magnitude 1."""

PROMPTS = (5, 17, 11)
DECODE_STEPS = 4
MAX_PARAMETERS = 100_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What came of a check."""

    family: str
    ok: bool
    splits: tuple[str, ...]
    """The partitions tried, e.g. ``0-1 2-3``."""
    max_delta_logit: float
    reason: str
    """Empty when ok, else what is in the way."""


def check_family(family_or_path: str) -> Check:
    """Check a family by its name in transformers, or a model by its folder.

    Raises ModelFilesError when a folder's config cannot be read.
    """
    path = Path(family_or_path)
    try:
        if (path / "config.json").exists():
            return check_shape(read_config(path))
        return _check(family_or_path, lambda: tiny.default_config(family_or_path))
    except ModelUnsupported as error:
        return _refused(family_or_path, str(error))


def check_shape(config: Any) -> Check:
    """Check a tiny model of the shape that a config describes."""
    return _check(config.model_type, lambda: tiny.shrink(config))


def ensure_supported(folder: Path, spec: ModelSpec, *, cache: Path) -> None:
    """Raises ModelUnsupported unless a tiny model of this config splits exactly.

    cache: a folder for the outcomes, kept by config, transformers' version and our own
    """
    ensure_config_supported(read_config(folder), spec.name, cache=cache)


def ensure_config_supported(config: Any, name: str, *, cache: Path) -> None:
    """The same of a config that was read."""
    text = json.dumps([config.to_dict(), transformers.__version__, CHECK_VERSION], sort_keys=True)
    file = cache / "checks" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
    reason = _read_reason(file)
    if reason is None:
        reason = check_shape(config).reason
        _keep_reason(file, config.model_type, reason)
    if reason:
        raise ModelUnsupported(f"{name} cannot be served: {reason}")


def _check(family: str, make_config: Callable[[], Any]) -> Check:
    """Check a tiny config; whatever goes wrong in a family's code is a reason."""
    try:
        with quiet_transformers(), tempfile.TemporaryDirectory(prefix="p2pnode-check-") as name:
            config = make_config()
            _check_size(config)
            splits = _partitions(config.num_hidden_layers)
            whole = tiny.random_model(config)
            whole.save_pretrained(name)
            script = _Script(whole)
            worst = max(script.delta(_load(Path(name), split)) for split in splits)
    except P2PNodeError as error:
        return _refused(family, str(error))
    except CODE_ERRORS as error:
        return _refused(family, f"its code fails: {one_line(error)}")
    ok = worst <= TOLERANCE * script.magnitude
    reason = "" if ok else f"split, its logits differ by {worst:.1e} from the unsplit model's"
    names = tuple(" ".join(map(str, split)) for split in splits)
    return Check(family=family, ok=ok, splits=names, max_delta_logit=worst, reason=reason)


def _check_size(config: Any) -> None:
    """Raises ModelUnsupported unless the config's parts are found and it has become tiny."""
    model = build(config, torch.float32, packs=True).model
    size = sum(each.numel() for each in model.parameters())
    if size > MAX_PARAMETERS:
        raise ModelUnsupported(f"its config cannot be shrunk: {size / 1e6:.0f} M parameters")


class _Script:
    """What every partition goes through, and the unsplit model's logits for it."""

    def __init__(self, whole: Any) -> None:
        generator = torch.Generator().manual_seed(1)
        self._texts = [
            torch.randint(3, tiny.VOCAB_SIZE, (prompt + DECODE_STEPS,), generator=generator)
            for prompt in PROMPTS
        ]
        with torch.inference_mode():
            self._expected = [whole(text[None], use_cache=False).logits[0] for text in self._texts]
        self.magnitude = max(1.0, *(float(each.abs().max()) for each in self._expected))

    def delta(self, blocks: Sequence[Block]) -> float:
        """Largest difference of any logit of any step."""
        caches = [[block.new_cache(len(text)) for block in blocks] for text in self._texts]
        worst = 0.0
        for steps in self._steps():
            parts = [(caches[i], start, self._texts[i][start:stop]) for i, start, stop in steps]
            for (i, start, stop), logits in zip(steps, _run(blocks, parts), strict=True):
                difference = (logits - self._expected[i][start:stop]).abs().max()
                worst = max(worst, float(torch.nan_to_num(difference, nan=float("inf"))))
        return worst

    def _steps(self) -> list[list[tuple[int, int, int]]]:
        """Forwards, each with (session, start, stop) of the tokens that it takes."""
        first, second, third = PROMPTS
        together = [[(0, 0, first), (1, 0, second), (2, 0, third - 4)], [(2, third - 4, third)]]
        decode = [
            [(i, prompt + step, prompt + step + 1) for i, prompt in enumerate(PROMPTS)]
            for step in range(DECODE_STEPS)
        ]
        rolled_back = [[(1, second - 3, second + 1), (0, first + 1, first + 2)]]
        return together + decode + rolled_back


def _run(
    blocks: Sequence[Block], parts: Sequence[tuple[Sequence[Any], int, torch.Tensor]]
) -> list[torch.Tensor]:
    """One forward of several sessions through all blocks; logits per session."""
    entries = [tokens for _, _, tokens in parts]
    for index, block in enumerate(blocks):
        work = [
            Work(cache=caches[index], position=position, entry=entry)
            for (caches, position, _), entry in zip(parts, entries, strict=True)
        ]
        entries = block.forward(work)
    return [blocks[-1].logits(entry) for entry in entries]


def _load(folder: Path, split: Sequence[LayerRange]) -> list[Block]:
    spec = read_spec(folder, "tiny", "")
    return [Block.load(folder, spec, layers, device="cpu", dtype="float32") for layers in split]


def _partitions(num_layers: int) -> list[list[LayerRange]]:
    """Cuts into 1 to ``num_layers`` parts, as even as they go."""
    partitions = []
    for parts in range(1, num_layers + 1):
        edges = [index * num_layers // parts for index in range(parts + 1)]
        partitions.append([LayerRange(a, b) for a, b in pairwise(edges)])
    return partitions


def _refused(family: str, reason: str) -> Check:
    return Check(family=family, ok=False, splits=(), max_delta_logit=float("inf"), reason=reason)


def _keep_reason(file: Path, family: str, reason: str) -> None:
    """Remember an outcome; a disk without room only means that it is found out again."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(".new")
        temporary.write_text(json.dumps({"family": family, "reason": reason}))
        temporary.replace(file)
    except OSError as error:
        log.warning("outcome of a check not kept: error=%s", error)


def _read_reason(file: Path) -> str | None:
    """The outcome kept for a config, if it is legible."""
    try:
        reason = json.loads(file.read_text())["reason"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return reason if isinstance(reason, str) else None


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars and warnings of transformers: the outcome says all that matters."""
    verbosity = transformers_logging.get_verbosity()
    had_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if had_bars:
            transformers_logging.enable_progress_bar()
