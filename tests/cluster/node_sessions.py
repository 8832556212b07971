"""Execs into node pods, as the FAKE API server's programs see them."""

from __future__ import annotations

import json

from kubectl_ebpfnet import __version__
from kubectl_ebpfnet.cluster.nodepods.sides import session_argv
from kubectl_ebpfnet.model.protocol.node_side import own_digest
from kubectl_ebpfnet.model.protocol.questions import PROTOCOL
from tests.cluster.fake_api_server import ExecEnd, Program

OURS = {"protocol": PROTOCOL, "version": __version__, "digest": own_digest()}
"""What a node side of this version says of itself, before any answer."""
NONE = {"protocol": 0, "version": "", "digest": ""}
"""What connect.py says in a pod without a node side."""


def session_words(argv: list[str]) -> list[str] | None:
    """Return the words of a session with the node side, None for another exec."""
    lead = list(session_argv())
    return argv[len(lead) :] if argv[: len(lead)] == lead else None


def requests(end: ExecEnd) -> list[dict[str, object]]:
    """Return the questions of a session."""
    text = b""
    for piece in end.stdin():
        text += piece
        if b'"end"' in text:
            break
    return [json.loads(line) for line in text.splitlines()][:-1]


def answer(end: ExecEnd, *lines: object) -> None:
    """Answer with JSON lines, and end."""
    end.write(1, b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    end.end()


def with_node_side(program: Program) -> Program:
    """Return a program for sessions with words; one without is told that ours is there."""

    def either(end: ExecEnd) -> None:
        if session_words(end.argv):
            program(end)
        else:
            requests(end)
            answer(end, OURS)

    return either
