"""This machine as it is now. Blocks for about a second; run it on a thread.

What cannot be read is None and no error: a check says so.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from p2pnode.config import DEFAULT_PORT, Home
from p2pnode.errors import BadRequest, LocalError, P2PNodeError
from p2pnode.model.device import Device, choose_device, measure_bandwidth
from p2pnode.model.fingerprint import weight_names
from p2pnode.model.sensors import Gpu, Temperature, gpus, temperature
from p2pnode.model.source import BUILTIN_NAMES, find_model
from p2pnode.model.spec import read_config
from p2pnode.model.weights import WeightsFile
from p2pnode.swarm.running import running_addresses
from p2pnode.types import PeerId

SWAP_LOOK_S = 0.5
"""How long swapping is watched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """What was seen of this machine, so far."""

    memory_total_bytes: int
    memory_free_bytes: int
    """What programs can still get without swapping."""
    swap_used_bytes: int = 0
    swap_bytes_per_s: float = 0.0
    """In and out together, while we looked."""
    disk_free_bytes: int | None = None
    disk_folder: str = ""
    disk_error: str = ""
    """Why nothing can be written to the home; empty: it can."""
    port: int = DEFAULT_PORT
    port_error: str = ""
    """Why nothing can listen there; empty: it is free."""
    has_network: bool = True
    """Whether an interface but loopback is up with an address."""
    device: Device | None = None
    device_error: str = ""
    memory_bytes_per_s: float | None = None
    """What the device moves, measured now."""
    temperature: Temperature | None = None
    gpus: tuple[Gpu, ...] = ()
    model: str | None = None
    """What was looked at of a model's files; empty: they are not here. None: not yet."""
    model_error: str = ""
    own_peers: frozenset[PeerId] = frozenset()
    """Nodes that run in this home."""


def look(home: Home, model: str | None) -> Iterator[Here]:
    """Look at everything, what takes no time first; model: None for the built-in one."""
    swapped, began = _swapped_bytes(), time.monotonic()
    memory = psutil.virtual_memory()
    folder, free_bytes, disk_error = _disk(home.folder)
    here = Here(
        memory_total_bytes=memory.total,
        memory_free_bytes=memory.available,
        swap_used_bytes=psutil.swap_memory().used,
        disk_free_bytes=free_bytes,
        disk_folder=folder,
        disk_error=disk_error,
        port_error=_listens(DEFAULT_PORT),
        has_network=_has_network(),
        own_peers=_own_peers(home),
    )
    yield here
    device, device_error, rate = _device()
    here = replace(
        here,
        device=device,
        device_error=device_error,
        memory_bytes_per_s=rate,
        temperature=temperature(),
        gpus=gpus(),
    )
    yield here
    model_found, model_error = _model(model, home.cache)
    left_s = SWAP_LOOK_S - (time.monotonic() - began)
    if left_s > 0:
        time.sleep(left_s)
    swapped_per_s = max(0, _swapped_bytes() - swapped) / (time.monotonic() - began)
    yield replace(here, model=model_found, model_error=model_error, swap_bytes_per_s=swapped_per_s)


def _swapped_bytes() -> int:
    swap = psutil.swap_memory()
    return int(swap.sin + swap.sout)


def _device() -> tuple[Device | None, str, float | None]:
    """The device that a node would take, and what it moves."""
    try:
        device = choose_device("auto")
        return device, "", measure_bandwidth(device)
    except P2PNodeError as error:
        return None, str(error), None


def _disk(folder: Path) -> tuple[str, int | None, str]:
    """(where, bytes free there, why nothing can be written) of the nearest folder that exists."""
    there = next((each for each in (folder, *folder.parents) if each.exists()), Path("/"))
    try:
        free_bytes = shutil.disk_usage(there).free
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"p2pnode")
            file.flush()
    except OSError as error:
        return str(there), None, error.strerror or str(error)
    return str(there), free_bytes, ""


def _listens(port: int) -> str:
    """Why neither TCP nor UDP could listen at a port; empty: both can."""
    for kind, name in ((socket.SOCK_STREAM, "TCP"), (socket.SOCK_DGRAM, "UDP")):
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))  # the port is free only if it is so everywhere
            except OSError as error:
                return f"{name} {port}: {error.strerror or error}"
    return ""


def _has_network() -> bool:
    up = {name for name, each in psutil.net_if_stats().items() if each.isup}
    return any(
        address.family in (socket.AF_INET, socket.AF_INET6)
        and not address.address.startswith(("127.", "::1", "fe80"))
        for name, addresses in psutil.net_if_addrs().items()
        if name in up
        for address in addresses
    )


def _model(model: str | None, cache: Path) -> tuple[str, str]:
    """(what was looked at, what is wrong with it): headers and sizes, no sums over weights.

    Of the built-in model, which is small, the sums as well.
    """
    try:
        if model in BUILTIN_NAMES:
            folder = find_model(None, cache=cache).folder
        else:
            folder = Path(model or "").expanduser()
        if not folder.is_dir():
            return "", ""  # on the hub, or nowhere: nothing is fetched here
        return str(folder), _files_error(folder)
    except (LocalError, BadRequest, RuntimeError) as error:
        return str(model or "the built-in model"), str(error)


def _files_error(folder: Path) -> str:
    read_config(folder)
    num_tensors = 0
    for name in weight_names(folder):
        if not os.access(folder / name, os.R_OK):
            return f"{folder / name} is missing or cannot be read; fetch the model again"
        with WeightsFile(folder / name) as weights:
            num_tensors += len(weights.entries)
    return "" if num_tensors else f"{folder} holds no tensors; fetch the model again"


def _own_peers(home: Home) -> frozenset[PeerId]:
    found = set()
    for address in running_addresses(home.run):
        _, _, peer = address.rpartition("/p2p/")
        try:
            found.add(PeerId.parse(peer))
        except ValueError:
            continue
    return frozenset(found)
