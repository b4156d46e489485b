"""Trials on disk, one JSON line each, so that a sweep that was interrupted goes on where it was.

A file belongs to one commit and one set of settings, both in its first line. While a sweep runs
it is called ``NAME.part``; when complete ``NAME.jsonl``, which replaces the one before.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from p2pnode.errors import BadRequest, DiskFull
from p2pnode.lab.result import Trial
from p2pnode.log import escape

GIT_WITHIN_S = 5.0
MAX_LINE_CHARS = 64 << 10
MAX_TRIALS = 100_000


@dataclass(slots=True)
class Record:
    """The trials of one sweep: those that are done, by the name of their scenario."""

    file: Path
    """Where they will be when all are done."""
    head: str
    """The first line: commit and settings."""
    trials: dict[str, Trial] = field(default_factory=dict)
    _is_begun: bool = False

    @property
    def part(self) -> Path:
        """Where they are until then."""
        return self.file.with_suffix(".part")

    def add(self, trial: Trial) -> None:
        """Keep a trial, at once; raises DiskFull when it cannot be written."""
        self.trials[trial.scenario] = trial
        lines, mode = [trial.to_json()], "a"
        if not self._is_begun:  # also drops a line that was cut off
            lines, mode = [self.head, *(each.to_json() for each in self.trials.values())], "w"
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.part.open(mode) as file:
                file.writelines(f"{line}\n" for line in lines)
        except OSError as error:
            what = f"{escape(str(self.part))} cannot be written ({error.strerror})"
            raise DiskFull(f"{what}; make room, or name another --home") from None
        self._is_begun = True

    def complete(self) -> None:
        """All trials are there."""
        if self.part.exists():
            self.part.replace(self.file)


def open_record(folder: Path, transport: str, commit: str, settings: dict[str, Any]) -> Record:
    """What was done of a sweep with these settings, and not completed; else nothing.

    folder: where sweeps are kept. Of a commit that is unknown, or with changes on top, nothing is
    resumed: the code may be another one.
    """
    head = json.dumps({"transport": transport, "commit": commit, **settings}, sort_keys=True)
    digest = hashlib.sha256(head.encode()).hexdigest()[:12]
    record = Record(folder / f"{settings['fault']}-{transport}-{digest}.jsonl", head)
    if commit == "unknown" or commit.endswith("-dirty"):
        return record
    record.trials.update(_done(record.part, head))
    return record


def read_record(file: Path) -> tuple[dict[str, Any], list[Trial]]:
    """First line and trials of a complete sweep; raises BadRequest when it is no such file."""
    lines = _lines(file)
    try:
        head = json.loads(lines[0]) if lines else None
    except (ValueError, RecursionError):
        head = None
    if not isinstance(head, dict):
        raise BadRequest(f"{escape(str(file))} is no record of a sweep; remove it")
    return head, [Trial.from_json(line) for line in lines[1:]]


def latest_record(folder: Path, **wanted: Any) -> tuple[Path, dict[str, Any], list[Trial]] | None:
    """The newest complete sweep whose first line says what is wanted; None without one.

    Files that are no records are passed over. The file's time is when it was completed.
    """
    files = sorted(folder.glob("*.jsonl"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in files:
        try:
            head, trials = read_record(file)
        except BadRequest:
            continue
        if wanted.items() <= head.items():
            return file, head, trials
    return None


def _done(part: Path, head: str) -> dict[str, Trial]:
    lines = _lines(part)
    if not lines or lines[0] != head:
        return {}
    done: dict[str, Trial] = {}
    for line in lines[1:]:
        try:
            trial = Trial.from_json(line)
        except BadRequest:
            break  # written when the lights went out: that trial and what follows is done again
        done[trial.scenario] = trial
    return done


def _lines(file: Path) -> list[str]:
    try:
        with file.open(errors="replace") as opened:
            return [
                line.rstrip("\n")
                for line, _ in zip(
                    iter(lambda: opened.readline(MAX_LINE_CHARS), ""),
                    range(MAX_TRIALS + 1),
                    strict=False,
                )
            ]
    except OSError:
        return []


def current_commit(folder: Path) -> str:
    """The commit of the checkout that ``folder`` is in, with ``-dirty``; else ``unknown``."""
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=12", "--dirty"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=GIT_WITHIN_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()[:60] or "unknown"
