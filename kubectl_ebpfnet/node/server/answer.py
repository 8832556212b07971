"""Requests in, answers out: the node side's end of kubectl_ebpfnet/model/protocol/questions.py.

A question that fails is an answer with its reason; it never ends the run.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO

from kubectl_ebpfnet import __version__
from kubectl_ebpfnet.errors import EbpfnetError, Incomplete, KernelError, ParseError
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.protocol.questions import PROGRAM, PROTOCOL, NodeRequest, ask
from kubectl_ebpfnet.model.untrusted import json_value
from kubectl_ebpfnet.node.host import netns, programs
from kubectl_ebpfnet.node.server import registry

_PART_BYTES = 256 << 10
_SIDE_BY_SIDE = frozenset({ask("probe")})
"""Questions that mostly wait: for silence, and for the kernel to let go of a program."""
_AT_ONCE = 64
Give = Callable[[bytes], None]
"""Takes the next part of an answer's body."""


@dataclass(frozen=True, slots=True)
class AnswerStatus:
    """How one question ended; `error` is one sentence, "" when it was answered. With exit code 0 it
    says what the answer lacks."""

    exit_code: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class NodeAnswer:
    """A whole answer: `stdout` is facts, one a line, or a program's own text."""

    exit_code: int
    stdout: bytes = b""
    error: str = ""


def serve(requests: BinaryIO, answers: BinaryIO) -> int:
    """Answer requests until `end`, or until there are no more.

    Returns:
        Exit code: 0; 2 when a line was no request, or of another protocol version.
    """
    _say(answers, {"protocol": PROTOCOL, "version": __version__})
    waiting: list[tuple[NodeRequest, Future[NodeAnswer]]] = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        while line := requests.readline():
            try:
                value = json_value(line, "a request")
                if isinstance(value, dict) and value.get("end"):
                    break
                request = _request(value)
            except (ValueError, ParseError) as error:
                _say(answers, {"id": 0, "exit_code": 2, "bytes": 0, "error": str(error)})
                return 2
            if request.argv[:2] in _SIDE_BY_SIDE:
                waiting.append((request, pool.submit(answered, request)))
                continue
            _send_waiting(waiting, answers)
            _send(request, answers)
        _send_waiting(waiting, answers)
    return 0


def _send_waiting(waiting: list[tuple[NodeRequest, Future[NodeAnswer]]], out: BinaryIO) -> None:
    """Answers that were made side by side, in the order of their requests."""
    for request, future in waiting:
        found = future.result()
        header = {"id": request.id, "bytes": len(found.stdout), "exit_code": found.exit_code}
        _say(out, {**header, "error": found.error}, found.stdout)
    waiting.clear()


def _send(request: NodeRequest, out: BinaryIO) -> None:
    held = bytearray()

    def give(body: bytes) -> None:
        held.extend(body)
        if len(held) >= _PART_BYTES:
            _say(out, {"id": request.id, "bytes": len(held), "more": True}, bytes(held))
            held.clear()

    outcome = answer(request, give)
    header = {"id": request.id, "bytes": len(held)}
    _say(out, {**header, "exit_code": outcome.exit_code, "error": outcome.error}, bytes(held))


def _request(value: Any) -> NodeRequest:
    if not isinstance(value, dict):
        raise ValueError("a request is a JSON object")
    theirs = value.get("protocol")
    if theirs != PROTOCOL:
        raise ValueError(
            f"this is the node side of kubectl-ebpfnet {__version__}, which speaks protocol"
            f" {PROTOCOL}; the client speaks {theirs}: use an --image of the client's version"
        )
    request = codec.typed(value, NodeRequest)
    if not isinstance(request, NodeRequest) or not request.argv:
        raise ValueError("a request names what it asks in argv")
    return request


def answer(request: NodeRequest, give: Give) -> AnswerStatus:
    """Answer one request; never raises for what the kernel or a program refuses.

    Args:
        request: what is asked.
        give: takes the body as it comes: facts, a line each, or a program's own text.
    """
    try:
        where = None if request.netns is None else netns.of_pod(request.netns)
        with netns.inside(where):
            return _answered_here(request, give)
    except EbpfnetError as error:
        return AnswerStatus(1, _words(error))
    except OSError as error:
        return AnswerStatus(1, str(error))
    except Exception as error:  # one bad table must not take the other answers with it
        return AnswerStatus(1, f"internal error: {type(error).__name__}: {error}")


def answered(request: NodeRequest) -> NodeAnswer:
    """Answer one request as a whole, for those who have no place to send parts to."""
    body = bytearray()
    outcome = answer(request, body.extend)
    return NodeAnswer(outcome.exit_code, bytes(body), outcome.error)


def _words(error: EbpfnetError) -> str:
    """Message and hint as one sentence on one line."""
    words = f"{error.message} ({error.hint})" if error.hint else error.message
    return " ".join(words.split())


def _answered_here(request: NodeRequest, give: Give) -> AnswerStatus:
    if request.argv[0] != PROGRAM:
        code, text, complaint = programs.run(request.argv)
        give(text)
        return AnswerStatus(code, complaint if code else "")
    name = request.argv[1] if len(request.argv) > 1 else ""
    if name not in registry.ASKS:
        raise KernelError(f"no question {name!r}; there are: {', '.join(sorted(registry.ASKS))}")
    try:
        for fact in registry.function(name)(request):
            give(codec.line_of(fact))
    except Incomplete as error:
        return AnswerStatus(0, _words(error))
    return AnswerStatus(0)


def _say(out: BinaryIO, header: dict[str, Any], body: bytes = b"") -> None:
    out.write(json.dumps(header, separators=(",", ":")).encode() + b"\n" + body)
    out.flush()
