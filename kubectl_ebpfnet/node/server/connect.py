"""What an exec into a node pod runs: hands its words and its streams to the pod's first process.

Run as a file by `python3 -I -S`, so it imports nothing of ours and little of Python's: it takes
some 15 ms where the node side itself takes 200 to start (zygote.py). With other words than a client
of ours has, or where nobody listens, it becomes `python3 -m kubectl_ebpfnet.node`, which is slower
and does the same.
"""

import os
import socket
import sys
import time

SOCKET = "/run/ebpfnet/node.sock"
_FRAMED = ["netkat", "--stdin-frames"]  # OPTION of kubectl_ebpfnet/model/protocol/frames.py
_START_SECONDS = 5.0  # a container runs before its first process listens
_STEP_SECONDS = 0.01


def main(words: list[str]) -> int:
    """Give this session away and wait for its end. Returns its exit code."""
    if not words or words[:2] == _FRAMED:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as way:
            if _connected(way):
                socket.send_fds(way, [os.fsencode("\0".join(words))], (0, 1, 2))
                code = way.recv(1)
                return code[0] if code else 1
    own = [sys.executable, "-m", "kubectl_ebpfnet.node", *words]
    return os.execv(own[0], own)  # noqa: S606  it becomes that program and does not return


def _connected(way: socket.socket) -> bool:
    """Connect to the first process, which may be about to listen; False when there is none."""
    end = time.monotonic() + _START_SECONDS
    while True:
        try:
            way.connect(os.environ.get("EBPFNET_NODE_SOCKET", SOCKET))
            return True
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > end:
                return False
            time.sleep(_STEP_SECONDS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
