"""The program of an exec into a node pod: hands its arguments and streams to the first process.

Run as a file by `python3 -I -S`, it imports nothing of this package and little of Python: it starts
in some 15 ms, the node side in 200 (zygote.py). With arguments of no client, or without a listening
first process, it becomes `python3 -m kubectl_ebpfnet.node`, which is slower and does the same.
"""

import os
import socket
import sys
import time

SOCKET = "/run/ebpfnet/node.sock"
_FRAMED = ["netkat", "--stdin-frames"]  # OPTION of kubectl_ebpfnet/model/protocol/frames.py
_START_SECONDS = 5.0  # the first process of a new container listens a while after the start
_STEP_SECONDS = 0.01


def main(words: list[str]) -> int:
    """Hand this session over and wait for its end. Returns its exit code."""
    if not words or words[:2] == _FRAMED:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            if _connected(connection):
                socket.send_fds(connection, [os.fsencode("\0".join(words))], (0, 1, 2))
                code = connection.recv(1)
                return code[0] if code else 1
    argv = [sys.executable, "-m", "kubectl_ebpfnet.node", *words]
    return os.execv(argv[0], argv)  # noqa: S606  replaces this process


def _connected(connection: socket.socket) -> bool:
    """Connect to the first process, which may not listen yet; tell whether that succeeded."""
    end = time.monotonic() + _START_SECONDS
    while True:
        try:
            connection.connect(os.environ.get("EBPFNET_NODE_SOCKET", SOCKET))
            return True
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > end:
                return False
            time.sleep(_STEP_SECONDS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
