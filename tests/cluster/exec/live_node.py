"""The server's end of a live exec for the fake API server: the real node side as a process."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading

from tests.cluster.fake_api_server import ExecEnd, Program, exited
from tests.cluster.node_sessions import session_words

CAT = "while data := os.read(0, 65536):\n    os.write(1, data)\nreturn 0"
"""The body of a program that echoes stdin."""


def on_the_node(body: str, started: list[subprocess.Popen[bytes]] | None = None) -> Program:
    """Return a program that runs a Python function with this body in a framed session."""
    text = "import os, sys, time\ndef program(words):\n"
    text += "".join(f"    {line}\n" for line in body.splitlines())
    text += "from kubectl_ebpfnet.node.server import framed_session as frames\n"
    text += "sys.exit(frames.run(sys.argv[1:], program))\n"

    def program(end: ExecEnd) -> None:
        lock = threading.Lock()
        argv = [sys.executable, "-c", text, *(session_words(end.argv) or end.argv)[2:]]
        pipe = subprocess.PIPE
        with subprocess.Popen(argv, bufsize=0, stdin=pipe, stdout=pipe, stderr=pipe) as process:
            if started is not None:
                started.append(process)
            outputs = [
                threading.Thread(target=_pass_on, args=(end, lock, channel, stream))
                for channel, stream in ((1, process.stdout), (2, process.stderr))
            ]
            for thread in outputs:
                thread.start()
            threading.Thread(target=_feed, args=(end, process), daemon=True).start()
            for thread in outputs:
                thread.join()
            code = process.wait()
        end.end(exited(code))

    return program


def _pass_on(end: ExecEnd, lock: threading.Lock, channel: int, stream) -> None:
    # Frames are made by hand: the protocol object belongs to the reader.
    with contextlib.suppress(OSError):  # the client is gone
        while data := stream.read(32767):
            message = bytes([channel]) + data
            with lock:
                end.sock.sendall(b"\x82\x7f" + len(message).to_bytes(8, "big") + message)
    stream.close()


def _feed(end: ExecEnd, process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(
        OSError, ValueError
    ):  # the process ended, or a killed client sent a reset
        for piece in end.stdin():
            left = memoryview(piece)
            while left:
                left = left[os.write(process.stdin.fileno(), left) :]
    with contextlib.suppress(OSError):
        process.stdin.close()
