"""What ``p2pnode model check`` runs and shows."""

from __future__ import annotations

from dataclasses import asdict
from math import isfinite
from pathlib import Path

import typer

from p2pnode.cli.exits import FAILED
from p2pnode.cli.output import Output
from p2pnode.errors import BadRequest
from p2pnode.log import escape
from p2pnode.model.accuracy import TEXT, accuracy_quantised
from p2pnode.model.check import check_family
from p2pnode.model.quant_library import ensure_installed
from p2pnode.model.source import find_model
from p2pnode.model.spec import read_spec
from p2pnode.node.wire_gate import DTYPE, MAX_DELTA_LOGIT, MAX_MEAN_KL, MIN_TOP1_AGREEMENT
from p2pnode.node.wire_gate import check as check_wire

MAX_TEXT_BYTES = 1 << 20


def split(name: str, output: Output) -> None:
    """Whether a family splits."""
    result = check_family(name)
    delta = result.max_delta_logit if isfinite(result.max_delta_logit) else None
    output.result(
        {
            "family": result.family,
            "ok": result.ok,
            "splits": list(result.splits),
            "max_delta_logit": delta,
            "reason": result.reason,
        }
    )
    family = escape(result.family)
    if not result.ok:
        output.say(f"{family}: no; {escape(result.reason, 500)}")
        raise typer.Exit(FAILED)
    output.say(
        f"{family}: yes; {len(result.splits)} ways to split it, "
        f"logits differ by at most {delta:.1e} from the unsplit model's"
    )


def wire(name: str, coding: str, text: Path | None, cache: Path, output: Output) -> None:
    """Whether a model may be served with a lossy coding."""
    files = find_model(name, cache=cache)
    verdict = check_wire(files, coding, cache=cache, text=_read(text))
    measured = verdict.measured
    output.result(
        {
            "model": files.name,
            "wire": coding,
            "ok": verdict.ok,
            "reason": verdict.reason,
            **asdict(measured),
        }
    )
    output.say(
        f"{escape(files.name)} with {coding} between {measured.num_hops} hops, "
        f"{measured.num_tokens} tokens:"
    )
    output.say(
        f"  best token agrees at {measured.top1_agreement:.2%} (at least {MIN_TOP1_AGREEMENT:.0%})"
    )
    output.say(f"  mean KL divergence {measured.mean_kl:.1e} nats (at most {MAX_MEAN_KL:g})")
    output.say(
        f"  max |delta logit| {measured.max_delta_logit:.3f}"
        f" (at most {MAX_DELTA_LOGIT * measured.logit_deviation:.3f},"
        f" {MAX_DELTA_LOGIT:g} standard deviations)"
    )
    if not verdict.ok:
        output.say(f"failed: {verdict.reason}")
        raise typer.Exit(FAILED)
    output.say("passed")


def quantised(name: str, quant: str, text: Path | None, cache: Path, output: Output) -> None:
    """How much quantised weights change a model's answers; nobody is kept from serving by it."""
    ensure_installed(quant)
    files = find_model(name, cache=cache)
    spec = read_spec(files.folder, files.name, files.fingerprint)
    measured = accuracy_quantised(files.folder, spec, dtype=DTYPE, quant=quant, text=_read(text))
    output.result({"model": files.name, "quant": quant, **asdict(measured)})
    output.say(f"{escape(files.name)} with {quant} weights, {measured.num_tokens} tokens:")
    output.say(f"  best token agrees at {measured.top1_agreement:.2%}")
    output.say(f"  mean KL divergence {measured.mean_kl:.1e} nats")
    output.say(
        f"  max |delta logit| {measured.max_delta_logit:.3f}"
        f" ({measured.max_delta_logit / measured.logit_deviation:.2f} standard deviations)"
    )


def _read(file: Path | None) -> str:
    if file is None:
        return TEXT
    try:
        with file.open("rb") as opened:
            return opened.read(MAX_TEXT_BYTES).decode(errors="replace")
    except OSError as error:
        raise BadRequest(f"cannot read {escape(str(file))}: {error.strerror}") from error
