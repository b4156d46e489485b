"""A lossy coding of hidden states is served only for models whose answers it hardly changes.

The rule: `p2pnode model check --wire int8 MODEL` runs the whole model with int8 between four hops
against the plain one and keeps the outcome in the home's cache; `serve --wire int8` wants it kept
and passed, for this model's fingerprint. The built-in model has passed: a test repeats its check.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from p2pnode.errors import BadRequest, ModelUnsupported
from p2pnode.log import escape
from p2pnode.model.accuracy import TEXT, Accuracy, accuracy
from p2pnode.model.source import ModelFiles
from p2pnode.model.spec import read_spec
from p2pnode.wire.coding import recoded

DTYPE = "bfloat16"
"""What is checked; in float32 the same coding changes less."""
NUM_HOPS = 4
MIN_TOP1_AGREEMENT = 0.97
MAX_MEAN_KL = 0.005
MAX_DELTA_LOGIT = 0.5
"""Of the logits' standard deviation."""
VERSION = 1
"""Part of the file name: raise it when the coding or the check changes."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a check."""

    measured: Accuracy
    reason: str
    """Empty when passed, else which limit was missed."""

    @property
    def ok(self) -> bool:
        """Whether the coding may be served."""
        return not self.reason


def check(files: ModelFiles, wire: str, *, cache: Path, text: str = TEXT) -> Verdict:
    """Compare the model with and without the coding, and keep the outcome; blocks.

    Raises BadRequest, ModelFilesError, ModelUnsupported.
    """
    spec = read_spec(files.folder, files.name, files.fingerprint)
    try:
        measured = accuracy(
            files.folder,
            spec,
            dtype=DTYPE,
            num_hops=NUM_HOPS,
            change=partial(recoded, coding=wire),
            text=text,
        )
    except ValueError as error:
        raise BadRequest(f"{escape(spec.name)}: {error}") from error
    verdict = judge(measured)
    file = _file(files.fingerprint, wire, cache)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"reason": verdict.reason, **asdict(measured)}))
    return verdict


def judge(measured: Accuracy) -> Verdict:
    """Hold an outcome against the limits; NaN misses them."""
    delta = measured.max_delta_logit / measured.logit_deviation
    misses = [
        what
        for holds, what in (
            (
                measured.top1_agreement >= MIN_TOP1_AGREEMENT,
                f"the best token agrees at {measured.top1_agreement:.1%} of the positions, "
                f"at least {MIN_TOP1_AGREEMENT:.0%}",
            ),
            (
                measured.mean_kl <= MAX_MEAN_KL,
                f"mean KL divergence {measured.mean_kl:.1e}, at most {MAX_MEAN_KL:g}",
            ),
            (
                delta <= MAX_DELTA_LOGIT,
                f"a logit differs by {delta:.2f} standard deviations, at most {MAX_DELTA_LOGIT:g}",
            ),
        )
        if not holds
    ]
    return Verdict(measured, "; ".join(misses))


def ensure_passed(files: ModelFiles, wire: str, *, cache: Path) -> None:
    """Raises ModelUnsupported unless this coding may be served for this model."""
    if not wire or files.is_builtin:
        return
    reason = _kept_reason(_file(files.fingerprint, wire, cache))
    name = escape(files.name)
    if reason is None:
        is_folder = files.folder.name == files.name
        where = escape(str(files.folder)) if is_folder else name
        command = f"p2pnode model check --wire {wire} {where}"
        raise ModelUnsupported(f"{name} has not been checked with {wire} on the wire: {command}")
    if reason:
        raise ModelUnsupported(f"{name} is not served with {wire} on the wire: {reason}")


def _file(fingerprint: str, wire: str, cache: Path) -> Path:
    return cache / "checks" / f"wire-{wire}-{VERSION}-{fingerprint[:32]}.json"


def _kept_reason(file: Path) -> str | None:
    """The outcome kept, if it is legible."""
    try:
        reason = json.loads(file.read_text())["reason"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return reason if isinstance(reason, str) else None
