"""The systemd unit of a node: the one template, for `p2pnode service` and for `examples/deploy`.

A user's unit runs as that user, with what needs no privileges to be taken away. A system's unit
runs as a user of its own that exists only while it runs, and can write nowhere but in its state
folder. Devices stay: a GPU is one. Memory may be both written and run: torch compiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

NAME = "p2pnode.service"
SYSTEM_FOLDER = Path("/etc/systemd/system")
STATE = "/var/lib/p2pnode"

UNIT = """\
[Unit]
Description=p2pnode: serves layers of a language model to its swarm
Documentation=https://github.com/p2pnode/p2pnode
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=600
StartLimitBurst=10

[Service]
Type=exec
ExecStart={command}
Restart=on-failure
RestartSec=10
# Usage errors do not mend themselves.
RestartPreventExitStatus=2
# A node that leaves hands its sessions over first.
TimeoutStopSec=30
KillMode=mixed
UMask=0077
LimitNOFILE=65536
Nice=5
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
{own}
[Install]
WantedBy={target}
"""

USER_LINES = """\
Environment={home}
"""

SYSTEM_LINES = """\
DynamicUser=yes
StateDirectory=p2pnode
StateDirectoryMode=0700
WorkingDirectory={state}
Environment=HOME={state} {home}
# For Intel and AMD graphics add the group of /dev/dri: SupplementaryGroups=render
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
ProtectClock=yes
ProtectHostname=yes
ProtectControlGroups=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RemoveIPC=yes
"""


@dataclass(frozen=True, slots=True)
class Unit:
    """What is to run, and as whose service."""

    program: Sequence[str]
    """How p2pnode is started here, e.g. ``/opt/p2pnode/bin/p2pnode``."""
    arguments: Sequence[str]
    """Of `p2pnode serve`."""
    home: str
    """Where keys, caches and state are kept."""
    is_system: bool

    def render(self) -> str:
        """The text of the unit."""
        command = " ".join(map(quoted, (*self.program, "serve", *self.arguments)))
        home = quoted(f"P2PNODE_HOME={self.home}", expands=False)
        lines = SYSTEM_LINES.format(home=home, state=STATE) if self.is_system else None
        return UNIT.format(
            command=command,
            own=lines or USER_LINES.format(home=home),
            target="multi-user.target" if self.is_system else "default.target",
        )


def quoted(word: str, *, expands: bool = True) -> str:
    """One word of a unit, whatever is in it but control characters, which are refused before.

    expands: whether systemd would replace ``$NAME`` in it
    """
    text = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    if expands:
        text = text.replace("$", "$$")
    is_plain = all(char.isalnum() or char in "/.,:=_+@-%" for char in text)
    return text if is_plain and text else f'"{text}"'
