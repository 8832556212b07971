"""The replay agent's daemon: `python -m tests.lab.cluster.agent.daemon NODE` in an agent's pod.

`cilium-dbg` in that pod is a small client (cilium-dbg.c), so that a command costs what a Go program
costs and not the start of a Python.
"""

from __future__ import annotations

import select
import socketserver
import struct
import sys
from pathlib import Path

from tests.lab.cluster.agent.answers import Agent
from tests.lab.cluster.agent.monitor import Monitor
from tests.lab.cluster.config import NODES

SOCKET = "/run/ebl-agent.sock"
ANSWERS = "agent-answers"
"""File in the node's state folder that is there once commands are answered."""
SETTINGS = Path("/tmp/cilium/config-map")
"""One file a setting, as the real agent's init container writes them (cilium-facts 1.1)."""


class Answering(socketserver.BaseRequestHandler):
    """One command: its words, NUL-terminated; then exit code, length, stdout, stderr."""

    agent: Agent

    def handle(self) -> None:
        """Answer, and close."""
        data = b""
        while piece := self.request.recv(65536):
            data += piece
        words = tuple(data.decode("utf-8", "replace").split("\0")[:-1])
        if words[:2] == ("monitor", "-j"):
            self._monitor()
            return
        code, out, err = self.agent.answer(words)
        said = out.encode()
        self.request.sendall(struct.pack("=II", code, len(said)) + said + err.encode())

    def _monitor(self) -> None:
        """Tell of packets until the client is gone; a length that never ends stands before it."""
        self.request.sendall(struct.pack("=II", 0, 0xFFFFFFFF))
        gone = select.poll()
        gone.register(self.request, select.POLLHUP | select.POLLERR)
        for line in Monitor(self.agent.node, self.agent.own).lines():
            if gone.poll(0):
                return
            if line:
                try:
                    self.request.sendall(line)
                except OSError:
                    return


class Server(socketserver.ThreadingUnixStreamServer):
    """A thread a command."""

    daemon_threads = True
    request_queue_size = 64


def main() -> None:
    """Serve until told to stop."""
    node = next(node for node in NODES if node.name == sys.argv[1])
    Answering.agent = Agent(node)
    SETTINGS.mkdir(parents=True, exist_ok=True)
    for key, value in Answering.agent.forms["config"].items():
        (SETTINGS / key).write_text(value)
    Path(SOCKET).unlink(missing_ok=True)
    with Server(SOCKET, Answering) as server:
        (node.state / ANSWERS).touch()
        server.serve_forever()


if __name__ == "__main__":
    main()
