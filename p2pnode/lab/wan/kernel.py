"""What the lab asks of the Linux kernel beside files and sockets: namespaces, TUN, the timer."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

NAMESPACES = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_CLONE_NEWNS = 0x00020000
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_PR_SET_TIMERSLACK = 29
_MS_REC, _MS_PRIVATE = 1 << 14, 1 << 18


def enter(namespace: str) -> None:
    """Move this thread into a network namespace; raises OSError."""
    with _opened(NAMESPACES / namespace) as target:
        _check("setns", _libc().setns(target, _CLONE_NEWNET))


@contextlib.contextmanager
def visiting(namespace: str) -> Iterator[None]:
    """Be in a network namespace, with this thread only, and come back; raises OSError."""
    with _opened(Path("/proc/thread-self/ns/net")) as own:
        enter(namespace)
        try:
            yield
        finally:
            _check("setns", _libc().setns(own, _CLONE_NEWNET))


def open_tun(name: str) -> int:
    """Create a TUN device in the namespace we are in; it lives as long as the descriptor."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        request = struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI)
        fcntl.ioctl(descriptor, _TUNSETIFF, request)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def mount_small_disk(folder: Path, num_bytes: int) -> None:
    """Put a disk of that size over a folder, for this process and its children only."""
    libc = _libc()
    _check("unshare", libc.unshare(_CLONE_NEWNS))
    _check("mount", libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))
    options = f"size={num_bytes},mode=0700".encode()
    _check("mount", libc.mount(b"tmpfs", bytes(folder), b"tmpfs", 0, options))


def be_punctual() -> None:
    """Wake this process when its timer is due, also when others want the processor."""
    _libc().prctl(_PR_SET_TIMERSLACK, 1)
    with contextlib.suppress(OSError):  # without the right we are late now and then
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mount.argtypes = (
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_ulong,
        ctypes.c_char_p,
    )
    return libc


def _check(what: str, result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
