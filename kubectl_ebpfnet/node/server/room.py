"""Make room for a node side in a node pod's volume. bring.py executes this text out of the zip that
came, so it imports the standard library alone.

Node sides of other versions that nobody uses go: those that no process serves, and where that is
too little, those that have no session now, the longest unused first.
"""

import os
import shutil
import signal
import socket
import struct
import time

ROOM = 8 << 20  # bytes of one, with what Python compiles of it
YOUNG_SECONDS = 120  # a client that brings one is given as long (bring.py)
_END_STEPS, _STEP_SECONDS = 40, 0.05
_PEER = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid


def make_room(folder: str, digest: str) -> None:
    """Remove node sides that nobody uses.

    Args:
        folder: where the volume is mounted.
        digest: name of the node side that is brought.
    """
    others = {}
    for name in os.listdir(folder):
        path = f"{folder}/{name}"
        if name in ("bin", "image", digest) or not os.path.isdir(path):
            continue
        try:
            others[path] = os.stat(path).st_mtime
        except FileNotFoundError:  # another client renamed or removed it
            continue
    oldest_first = sorted(others, key=others.__getitem__)
    for path in oldest_first:
        served = os.path.exists(f"{path}/node.sock")
        if not served and time.time() - others[path] > YOUNG_SECONDS:
            shutil.rmtree(path, ignore_errors=True)
    for path in oldest_first:
        if free(folder) >= ROOM:
            return
        if os.path.exists(f"{path}/node.sock") and end_unused(path):
            shutil.rmtree(path, ignore_errors=True)


def free(folder: str) -> int:
    """Return the bytes that are free in the volume."""
    volume = os.statvfs(folder)
    return volume.f_bavail * volume.f_frsize


def end_unused(side: str) -> bool:
    """End the process that serves a node side (zygote.py), unless it has a session.

    Returns:
        True once there is no such process.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as to:
        try:
            to.connect(f"{side}/node.sock")
        except OSError:
            return True
        peer = to.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    pid = _PEER.unpack(peer)[0]
    told = False
    for _ in range(_END_STEPS):
        try:
            with open(f"/proc/{pid}/task/{pid}/children") as children:
                # The first steps may still see the child of the connection above.
                if not told and not children.read():
                    os.kill(pid, signal.SIGTERM)
                    told = True
        except OSError:  # it has ended; or this kernel does not tell children, and nothing was done
            return told
        time.sleep(_STEP_SECONDS)
    return False
