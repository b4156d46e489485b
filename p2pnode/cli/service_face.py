"""What `p2pnode service` does with systemd."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from p2pnode.cli.output import Output
from p2pnode.cli.unit import NAME, STATE, SYSTEM_FOLDER, Unit
from p2pnode.errors import LocalError
from p2pnode.log import escape

WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Systemd:
    """The systemd of this user, or of the machine."""

    is_system: bool
    folder: Path | None = None
    """Where units are; None: where they belong."""
    program: Sequence[str] = ("systemctl",)

    @property
    def file(self) -> Path:
        """Our unit."""
        if self.folder is not None:
            return self.folder / NAME
        return (SYSTEM_FOLDER if self.is_system else _user_folder()) / NAME

    def ask(self, *arguments: str) -> tuple[int, str]:
        """Run systemctl; returns its status and what it said. Raises LocalError."""
        command = [*self.program, *([] if self.is_system else ["--user"]), *arguments]
        try:
            made = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            what = f"systemd does not answer here ({type(error).__name__})"
            raise LocalError(f"{what}; start p2pnode serve in another way") from None
        return made.returncode, (made.stdout or made.stderr).strip()

    def order(self, *arguments: str) -> None:
        """Run systemctl, which must succeed; raises LocalError."""
        status, text = self.ask(*arguments)
        if status:
            what = escape(" ".join(text.split()), 300)
            raise LocalError(f"systemctl {' '.join(arguments)} failed: {what}")


def make_unit(arguments: Sequence[str], *, home: Path | None, is_system: bool) -> Unit:
    """The unit of a node that runs from where we run; home None: the state folder of systemd."""
    program = (sys.executable, "-m", "p2pnode")
    return Unit(program, tuple(arguments), str(home or STATE), is_system)


def install(unit: Unit, systemd: Systemd, output: Output) -> None:
    """Write it, and start it now and from now on; raises LocalError."""
    file = systemd.file
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(unit.render())
    except OSError as error:
        who = "; run it as root" if unit.is_system else ""
        raise LocalError(f"cannot write {file}: {error.strerror}{who}") from None
    systemd.order("daemon-reload")
    systemd.order("enable", NAME)
    systemd.order("restart", NAME)
    output.result({"file": str(file), "unit": unit.render()})
    output.say(f"installed {file}")
    output.say(f"its log: journalctl {'' if unit.is_system else '--user '}-u {NAME} -f")
    if not unit.is_system:
        output.say("it starts when you log in; from boot on: loginctl enable-linger")


def show_status(systemd: Systemd, output: Output) -> None:
    """Installed, enabled, running."""
    file = systemd.file
    is_installed = file.exists()
    active = systemd.ask("is-active", NAME)[1] if is_installed else "inactive"
    enabled = systemd.ask("is-enabled", NAME)[1] if is_installed else "disabled"
    fields = {
        "file": str(file) if is_installed else None,
        "installed": is_installed,
        "enabled": enabled == "enabled",
        "active": active,
    }
    output.result(fields)
    if not is_installed:
        output.say("not installed; install it with: p2pnode service install -- --layers FIRST-LAST")
        return
    output.say(f"{file}: {escape(active, 60)}, {escape(enabled, 60)}")


def remove(systemd: Systemd, output: Output) -> None:
    """Stop it and take it away; raises LocalError. Not installed is well, too."""
    file = systemd.file
    is_installed = file.exists()
    if is_installed:
        systemd.order("disable", "--now", NAME)
        try:
            file.unlink()
        except OSError as error:
            raise LocalError(f"cannot remove {file}: {error.strerror}") from None
        systemd.order("daemon-reload")
    output.result({"file": str(file), "removed": is_installed})
    output.say(f"removed {file}; keys and models stay" if is_installed else "not installed")


def _user_folder() -> Path:
    try:
        return Path("~/.config/systemd/user").expanduser()
    except RuntimeError:
        raise LocalError("cannot tell where your units are: no home folder") from None
