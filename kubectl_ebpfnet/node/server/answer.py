"""Answer requests: the node side's end of model/protocol/questions.py.

A question that fails is an answer with the reason; it never ends the run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, BinaryIO

from kubectl_ebpfnet import __version__
from kubectl_ebpfnet.errors import EbpfnetError, Incomplete, KernelError, ParseError
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.protocol import codec, node_side
from kubectl_ebpfnet.model.protocol.questions import (
    PROGRAM,
    PROTOCOL,
    LeftOut,
    NodeRequest,
    node_argv,
)
from kubectl_ebpfnet.model.untrusted import json_value
from kubectl_ebpfnet.node.host import netns, programs
from kubectl_ebpfnet.node.server import registry
from kubectl_ebpfnet.node.server.helper import Helper

_PART_BYTES = 256 << 10
_CONCURRENT = frozenset({node_argv("probe")})
"""Questions that mostly wait, for a time-out or for the kernel to detach a program."""
_OWN = 0
_LANES = {
    node_argv("ct"): 1,
    node_argv("nat"): 1,
    node_argv("snat-use"): 2,
    node_argv("conntrack"): 2,
}
"""Questions that read long tables, by the process that answers them beside this one, the longest
first. A large map of translations is read by what `ct` has found."""
_AT_ONCE = 64
WriteBody = Callable[[bytes], object]
"""Writes the next part of an answer's body."""


@dataclass(frozen=True, slots=True)
class AnswerStatus:
    """How one question ended; `error` is one sentence, "" without an error. With exit code 0 it is
    the reason why the answer is incomplete. `left_out` are entries that were not sent."""

    exit_code: int
    error: str = ""
    left_out: LeftOut | None = None

    @property
    def header(self) -> dict[str, Any]:
        """Members of the answer's last header."""
        shown = {"exit_code": self.exit_code, "error": self.error}
        if self.left_out is None:
            return shown
        return {**shown, "left_out": codec.plain(self.left_out)}


@dataclass(frozen=True, slots=True)
class NodeAnswer:
    """A whole answer: `stdout` is facts, one a line, or the text of a program."""

    status: AnswerStatus
    stdout: bytes = b""

    @property
    def exit_code(self) -> int:
        """Of its status."""
        return self.status.exit_code

    @property
    def error(self) -> str:
        """Of its status."""
        return self.status.error


def serve(requests: BinaryIO, answers: BinaryIO) -> int:
    """Answer requests until `end` or the end of input. All of them are read first, so that those
    that take long begin at once, wherever they stand.

    Args:
        requests, answers: the streams.

    Returns:
        Exit code: 0; 2 for a line that is no request, or of another protocol version.
    """
    _write_answer(answers, _greeting())
    lanes: dict[int, list[NodeRequest]] = {}
    try:
        for request in _asked(requests):
            lanes.setdefault(_lane(request), []).append(request)
    except (ValueError, ParseError) as error:
        _write_answer(answers, {"id": 0, "exit_code": 2, "bytes": 0, "error": str(error)})
        return 2
    own = lanes.pop(_OWN, [])
    helpers = [Helper(partial(_answer_each, asked)) for _, asked in sorted(lanes.items())]
    _answer_own(own, answers)
    for helper in helpers:
        helper.finish(answers)
    return 0


def _asked(lines: BinaryIO) -> Iterator[NodeRequest]:
    """Yield the requests. Raises ValueError, ParseError for anything else."""
    while line := lines.readline():
        value = json_value(line, "a request")
        if isinstance(value, dict) and value.get("end"):
            return
        yield _request(value)


def _answer_each(requests: Sequence[NodeRequest], answers: BinaryIO) -> None:
    """Answer requests in their order."""
    for request in requests:
        _answer_in_parts(request, answers)


def _greeting() -> dict[str, Any]:
    """Return what this node side says of itself; the client compares it with its own."""
    try:
        digest = node_side.own_digest()
    except EbpfnetError:
        digest = ""
    return {"protocol": PROTOCOL, "version": __version__, "digest": digest}


def _answer_own(requests: Sequence[NodeRequest], answers: BinaryIO) -> None:
    """Answer requests in their order. There is no thread before: helpers are forks."""
    waiting: list[tuple[NodeRequest, Future[NodeAnswer]]] = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for request in requests:
            if request.argv[:2] in _CONCURRENT:
                waiting.append((request, pool.submit(whole_answer, request)))
                continue
            _write_waiting(waiting, answers)
            _answer_in_parts(request, answers)
        _write_waiting(waiting, answers)


def _lane(request: NodeRequest) -> int:
    """Return which process answers a request: another one those that read long tables and send a
    short answer, since it waits for its turn."""
    short = request.newest or request.argv[:2] == node_argv("snat-use")
    return _LANES.get(request.argv[:2], _OWN) if short else _OWN


def _write_waiting(waiting: list[tuple[NodeRequest, Future[NodeAnswer]]], out: BinaryIO) -> None:
    """Write answers that were made concurrently, in the order of their requests."""
    for request, future in waiting:
        answered = future.result()
        header = {"id": request.id, "bytes": len(answered.stdout), **answered.status.header}
        _write_answer(out, header, answered.stdout)
    waiting.clear()


def _answer_in_parts(request: NodeRequest, out: BinaryIO) -> None:
    part = bytearray()

    def write_body(body: bytes) -> None:
        part.extend(body)
        if len(part) >= _PART_BYTES:
            _write_answer(out, {"id": request.id, "bytes": len(part), "more": True}, bytes(part))
            part.clear()

    outcome = answer(request, write_body)
    _write_answer(out, {"id": request.id, "bytes": len(part), **outcome.header}, bytes(part))


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


def answer(request: NodeRequest, write_body: WriteBody) -> AnswerStatus:
    """Answer one request; a refusal of the kernel or a program is an error in the status.

    Args:
        request: the question.
        write_body: takes the body as it comes: facts, one a line, or the text of a program.
    """
    try:
        netns_path = None if request.netns is None else netns.of_pod(request.netns)
        with netns.inside(netns_path):
            return _answer_in_netns(request, write_body)
    except EbpfnetError as error:
        return AnswerStatus(1, _error_sentence(error))
    except OSError as error:
        return AnswerStatus(1, str(error))
    except Exception as error:  # one bad table must not end the other answers
        return AnswerStatus(1, f"internal error: {type(error).__name__}: {error}")


def whole_answer(request: NodeRequest) -> NodeAnswer:
    """Answer one request as a whole, for a thread that cannot write parts."""
    body = bytearray()
    outcome = answer(request, body.extend)
    return NodeAnswer(outcome, bytes(body))


def _error_sentence(error: EbpfnetError) -> str:
    """Return message and hint as one sentence on one line."""
    sentence = f"{error.message} ({error.hint})" if error.hint else error.message
    return " ".join(sentence.split())


def _answer_in_netns(request: NodeRequest, write_body: WriteBody) -> AnswerStatus:
    if request.argv[0] != PROGRAM:
        code, text, complaint = programs.run(request.argv)
        write_body(text)
        return AnswerStatus(code, complaint if code else "")
    name = request.argv[1] if len(request.argv) > 1 else ""
    if name not in registry.FUNCTIONS:
        known = ", ".join(sorted(registry.FUNCTIONS))
        raise KernelError(f"no question {name!r}; there are: {known}")
    left_out = None
    try:
        for fact in registry.function(name)(request):
            if isinstance(fact, LeftOut):
                left_out = fact
            else:
                write_body(codec.line_of(fact))
    except Incomplete as error:
        return AnswerStatus(0, _error_sentence(error), left_out)
    return AnswerStatus(0, left_out=left_out)


def _write_answer(out: BinaryIO, header: dict[str, Any], body: bytes = b"") -> None:
    out.write(json.dumps(header, separators=(",", ":")).encode() + b"\n" + body)
    out.flush()
