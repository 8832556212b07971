"""What an exec into a node pod runs: hands its stdin and stdout to the pod's first process.

Run as a file by `python3 -I -S`, so it imports nothing of ours and little of Python's: it takes
some 15 ms where the node side itself takes 200 to start (hold.py). Where nobody listens, or with
words, it becomes `python3 -m kubectl_ebpfnet.node`, which is slower and does the same.
"""

import array
import os
import socket
import sys

SOCKET = "/run/ebpfnet/node.sock"


def main(words: list[str]) -> int:
    """Give this session away and wait for its end. Returns its exit code."""
    if not words:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as way:
                way.connect(os.environ.get("EBPFNET_NODE_SOCKET", SOCKET))
                fds = array.array("i", (0, 1))
                way.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
                code = way.recv(1)
                return code[0] if code else 1
        except (FileNotFoundError, ConnectionRefusedError):
            pass
    own = [sys.executable, "-m", "kubectl_ebpfnet.node", *words]
    return os.execv(own[0], own)  # noqa: S606  it becomes that program and does not return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
