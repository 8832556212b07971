"""The program of an exec into a node pod: hands its arguments and streams to the node side there.
The client sends this text with the exec (python3 -I -S -c TEXT DIGEST WORDS …), so any image with
Python will do; it imports little, and starts in some 15 ms, the node side in 200 (zygote.py).

Where no node side of DIGEST (model/protocol/node_side.py) is there, the image's own answers, and
says which one it is. Where there is none at all, this says so in a greeting of its own.
"""

import json
import os
import socket
import sys
import time

FOLDER = os.environ.get("EBPFNET_NODE_FOLDER", "/run/ebpfnet")
SECONDS = 5.0  # the first process of a new container listens a while after its start
LONGEST = 30.0  # a node side that came just now is compiled first, on a busy node
AGAIN = 0.25


def reach(path: str, message: str, *fds: int) -> bytes | None:
    """Send a message with descriptors; return the answer, None where nobody takes it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as to:
        try:
            to.connect(path)
            socket.send_fds(to, [os.fsencode(message)], fds)
            return to.recv(1)
        except OSError:  # not yet, not any more, or it ended before it took this
            return None


def main(digest: str, words: list[str]) -> int:
    """Hand this session over and wait for its end. Returns its exit code."""
    begun, asked, longest = time.monotonic(), -AGAIN, SECONDS
    while (now := time.monotonic()) < begun + longest:
        name = digest if os.path.exists(f"{FOLDER}/{digest}") else "image"
        side = f"{FOLDER}/{name}"
        code = reach(f"{side}/node.sock", "\0".join(words), 0, 1, 2)
        if code is not None:
            if not code:
                print("the node side ended in the middle: was its memory short?", file=sys.stderr)
            return code[0] if code else 1
        if not os.path.exists(side):
            if os.path.exists(f"{FOLDER}/first.sock"):
                break
        elif now >= asked + AGAIN and reach(f"{FOLDER}/first.sock", name, 0) is not None:
            # The first process (first.py) starts it, unless it does so already. One that is about
            # to end still counts as started: so ask again.
            asked, longest = now, LONGEST
        time.sleep(0.01)
    print(json.dumps({"protocol": 0, "version": "", "digest": ""}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
