"""Ask the node side in a node pod: all questions in one exec, a record for each.

model/protocol/questions.py has the protocol. As in container.py, nothing here raises for a place
that cannot be asked. A pod without this program's node side is sent it (cluster/nodepods/bring.py),
and asked again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kubectl_ebpfnet.capture.spool import Spool, StderrSpool
from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.cluster.exec.run import no_such_program
from kubectl_ebpfnet.cluster.exec.target import Container
from kubectl_ebpfnet.cluster.nodepods import sides
from kubectl_ebpfnet.cluster.nodepods.bring import bring
from kubectl_ebpfnet.cluster.nodepods.kept import NodePod
from kubectl_ebpfnet.collect.ask.container import limits_of, run_exec
from kubectl_ebpfnet.collect.ask.question import Question
from kubectl_ebpfnet.collect.ask.unasked import (
    EXEC,
    error_sentence,
    missing_permission,
    unavailable_record,
)
from kubectl_ebpfnet.collect.deadline import Deadline
from kubectl_ebpfnet.errors import ClusterError, ExecError, ParseError
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import Place, Record, now
from kubectl_ebpfnet.model.protocol import codec, node_side
from kubectl_ebpfnet.model.protocol.questions import (
    PROGRAM,
    PROTOCOL,
    LeftOut,
    NodeRequest,
)
from kubectl_ebpfnet.model.untrusted import json_value

_LONGEST_HEADER = 64 << 10
_LONGEST_VERSION = 40
_MOST_ANSWERS = 100_000


class AnswerStream:
    """Splits the node side's output into answers as the pieces come."""

    def __init__(self, spool: Callable[[], Spool] = Spool) -> None:
        """`spool` makes the buffer of one answer."""
        self._new_spool = spool
        self._buffer = b""
        self._header: dict[str, Any] | None = None
        self._begun: int | None = None  # id of an answer that has more parts
        self._body = spool()
        self._bytes_left = 0
        self.greeting: dict[str, Any] | None = None
        self.answers: dict[int, tuple[dict[str, Any], Spool]] = {}
        self.problem = ""
        self.other_side = False  # it is not this program's node side

    def feed(self, data: bytes) -> None:
        """Take the next piece. Raises OSError when there is no room for it."""
        if self.problem:
            return
        self._buffer += data
        while self._buffer and not self.problem:
            if self._header is not None:
                self._body.write(self._buffer[: self._bytes_left])
                taken = min(self._bytes_left, len(self._buffer))
                self._buffer, self._bytes_left = self._buffer[taken:], self._bytes_left - taken
                if self._bytes_left:
                    return
                self._finish_part(self._header)
                continue
            line, newline, rest = self._buffer.partition(b"\n")
            if not newline:
                if len(line) > _LONGEST_HEADER:
                    self.problem = "it does not speak as the node side does"
                return
            self._buffer = rest
            self._take_header(line)

    def _take_header(self, line: bytes) -> None:
        try:
            value = json_value(line, PROGRAM)
        except ParseError:
            value = None
        if not isinstance(value, dict) or len(self.answers) >= _MOST_ANSWERS:
            self.problem = f"it does not speak as the node side does: {line[:80]!r}"
        elif self.greeting is None:
            self.greeting = value
            self.other_side = value.get("digest") != node_side.own_digest()
            if self.other_side or value.get("protocol") != PROTOCOL:
                version = str(value.get("version") or "none")[:_LONGEST_VERSION]
                self.problem = f"the node side there is another one (version {version})"
        else:
            number, size = value.get("id"), value.get("bytes")
            if isinstance(size, bool) or not isinstance(size, int) or size < 0:
                self.problem = "an answer does not say how long it is"
                return
            if isinstance(number, bool) or not isinstance(number, int):
                self.problem = "an answer does not say to which question"
                return
            if number in self.answers or self._begun not in (None, number):
                self.problem = f"the parts of its answers are out of order, at answer {number}"
                return
            self._header, self._bytes_left = value, size
            if not size:
                self._finish_part(value)

    def _finish_part(self, header: dict[str, Any]) -> None:
        self._header = None
        self._begun = header["id"] if header.get("more") else None
        if self._begun is None:
            self.answers[header["id"]] = header, self._body
            self._body = self._new_spool()


@dataclass(frozen=True, slots=True)
class NodePodExec:
    """Asks the node pod of a node.

    Attributes:
        session: the connection.
        place: the node.
        wait: returns the node pod as soon as it runs; raises ClusterError.
        advise: takes the hint of the error where there is none, which its records do not have.
    """

    session: Session
    place: Place
    wait: Callable[[Deadline], NodePod]
    advise: Callable[[str], object] = str

    def ask(
        self, questions: Sequence[Question], deadline: Deadline, spool: Callable[[], Spool] = Spool
    ) -> list[Record]:
        """Ask all questions in one exec as soon as the pod runs.

        Args:
            questions: to ask; they may be of several places.
            deadline: of the whole run.
            spool: makes the buffer of one answer.

        Returns:
            A record for each question, the reason in those without an answer; one for each place
            when the node pod does not run in time.
        """
        try:
            container = self.wait(deadline).container
        except ClusterError as error:
            reason, denied = error_sentence(error, deadline), missing_permission(error)
            if not denied:  # a missing right is told with its tier
                self.advise(error.hint)
            places = dict.fromkeys(question.place for question in questions)
            return [
                unavailable_record(place, EXEC, f"no node pod: {reason}", denied)
                for place in places
            ]
        started = now()
        stream, reason, denied = self._converse(container, questions, deadline, spool)
        return list(_answer_records(questions, stream, started, reason, denied))

    def ready(self, deadline: Deadline) -> NodePod:
        """Wait for the node pod, and for this program's node side in it; return the pod.

        Raises:
            ClusterError: there is none in time, or it cannot be sent there.
        """
        pod = self.wait(deadline)
        stream, reason, _ = self._converse(pod.container, (), deadline, Spool)
        if reason or stream.greeting is None:
            raise ClusterError(reason or f"{pod.container}: the node side did not answer")
        return pod

    def _converse(
        self,
        container: Container,
        questions: Sequence[Question],
        deadline: Deadline,
        spool: Callable[[], Spool],
    ) -> tuple[AnswerStream, str, str]:
        """Ask, after sending this program's node side to a pod that has another one, or none.

        Returns:
            What came, why not everything did ("" for no reason), and the missing permission.
        """
        stream, reason, denied = self._exec(container, questions, deadline, AnswerStream(spool))
        if stream.other_side:
            try:
                bring(self.session, container, limits_of(deadline))
            except ClusterError as error:
                return stream, error_sentence(error, deadline), missing_permission(error)
            stream, reason, denied = self._exec(container, questions, deadline, AnswerStream(spool))
            if stream.other_side:
                reason = (
                    f"{container}: the node side that was sent does not start: see the pod's log"
                )
        return stream, reason, denied

    def _exec(
        self,
        container: Container,
        questions: Sequence[Question],
        deadline: Deadline,
        stream: AnswerStream,
    ) -> tuple[AnswerStream, str, str]:
        errors, reason, denied = StderrSpool(), "", ""
        try:
            code = run_exec(
                self.session, container, sides.session_argv(), stream.feed, errors.write, deadline,
                stdin=_request_lines(questions),
            )  # fmt: skip
            if code and not stream.problem:
                lines = errors.output().read().decode("utf-8", "replace").split("\n")
                last = next((f": {line.strip()}" for line in reversed(lines) if line.strip()), "")
                reason = f"the node side ended with exit code {code}{last}"
        except ClusterError as error:
            reason, denied = error_sentence(error, deadline), missing_permission(error)
            if isinstance(error, ExecError) and no_such_program(error):
                reason = str(sides.no_python(container))
            elif isinstance(error, ExecError) and not stream.greeting:
                reason = f"the node side did not start in {container}: {reason}"
        except OSError as error:  # from the spool
            reason = f"no room for the output: {error.strerror or error}"
        if stream.problem:
            reason = f"{container}: {stream.problem}"
        return stream, reason, denied


def _request_lines(questions: Sequence[Question]) -> bytes:
    lines = [
        json.dumps(
            {
                "protocol": PROTOCOL,
                **codec.plain(
                    NodeRequest(
                        number,
                        question.fact.node_argv,
                        question.netns,
                        question.flows,
                        question.beside,
                        question.newest if question.flows or question.beside else 0,
                        question.rows,
                    )
                ),
            }
        )
        for number, question in enumerate(questions, 1)
    ]
    return "".join(f"{line}\n" for line in [*lines, json.dumps({"end": True})]).encode()


def _answer_records(
    questions: Sequence[Question], stream: AnswerStream, started: str, reason: str, denied: str
) -> Iterator[Record]:
    answers = stream.answers
    refused = answers.get(0)  # a request that the node side could not parse
    if refused is not None:
        reason = str(refused[0].get("error"))
    for number, question in enumerate(questions, 1):
        place, argv = question.place, question.fact.node_argv
        if number not in answers:
            why = reason or "the node side did not answer"
            yield unavailable_record(place, argv, why, denied)
            continue
        header, body = answers[number]
        code = header.get("exit_code")
        stderr = str(header.get("error") or "").encode()
        output = body.output()
        code = code if isinstance(code, int) and not isinstance(code, bool) else 1
        cut = _left_out(header)
        yield Record(
            0,
            place,
            argv,
            code,
            output,
            stderr,
            started,
            line_filter=() if question.rows and not cut.older else question.needles,
            left_out=cut.older,
            beside_left_out=cut.beside,
            about=cut.about,
            flows=question.flows,
        )


def _left_out(header: dict[str, Any]) -> LeftOut:
    """Return how many entries the node side left out: of the flows, and of others beside."""
    try:
        said = codec.typed(header.get("left_out", {}), LeftOut)
    except (ValueError, ParseError):
        return LeftOut(1, 1)  # some: nobody knows how many
    return LeftOut(max(0, said.older), max(0, said.beside), said.about)
