"""hivemind and libp2p in one process: import hivemind from here only, never directly.

Both register the same protobuf file, so that the second import fails with "duplicate symbol
crypto.pb.KeyType". libp2p's comes first here and hivemind is given it; the other way round fails
too, since hivemind's enumeration lacks a member. Importing this module imports torch.
"""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path

import libp2p.crypto.pb.crypto_pb2

sys.modules.setdefault("hivemind.proto.crypto_pb2", libp2p.crypto.pb.crypto_pb2)

with warnings.catch_warnings():
    # hivemind's mixture of experts, which we never use, is scripted at import.
    warnings.filterwarnings("ignore", message=".torch.jit", category=DeprecationWarning)
    import hivemind
    import hivemind.hivemind_cli
    from hivemind.p2p import P2P, P2PDaemonError, P2PHandlerError, PeerID
    from hivemind.p2p.p2p_daemon import P2PD_FILENAME
    from hivemind.proto import p2pd_pb2
    from hivemind.utils.logging import use_hivemind_log_handler
    from hivemind.utils.multiaddr import Multiaddr

__all__ = [
    "P2P",
    "P2PD_FILE",
    "Multiaddr",
    "P2PDaemonError",
    "P2PHandlerError",
    "PeerID",
    "hivemind",
    "p2pd_pb2",
]

P2PD_FILE = Path(hivemind.hivemind_cli.__file__).with_name(P2PD_FILENAME)
"""The go-libp2p daemon in hivemind's wheel."""

# At import hivemind prints to stderr by itself, in colours, and renames a level for everybody.
# What it has to say goes to the root logger like everything else, and only when it is serious.
use_hivemind_log_handler("nowhere")
logging.addLevelName(logging.WARNING, "WARNING")
logging.getLogger("hivemind").setLevel(logging.ERROR)
