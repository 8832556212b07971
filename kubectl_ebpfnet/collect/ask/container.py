"""Ask a container questions by exec. A place that cannot be asked gives a record with the reason;
nothing here raises for it.

An image without a shell is asked by one exec for each form, one after another: some 80 ms each, so
half a second for a pod's five questions. A missing program is a record too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar
from urllib.parse import urlencode

from kubectl_ebpfnet.capture.spool import Spool, StderrSpool
from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.cluster.exec.pump import Limits
from kubectl_ebpfnet.cluster.exec.run import exec_stream, no_such_program
from kubectl_ebpfnet.cluster.exec.target import Container
from kubectl_ebpfnet.collect.ask import shell_script
from kubectl_ebpfnet.collect.ask.question import Question
from kubectl_ebpfnet.collect.ask.script import HANG_SECONDS, SCRIPT
from kubectl_ebpfnet.collect.ask.shell_script import Splitter, asks_agent
from kubectl_ebpfnet.collect.ask.unasked import (
    EXEC,
    error_sentence,
    missing_permission,
    unavailable_record,
)
from kubectl_ebpfnet.collect.deadline import Deadline
from kubectl_ebpfnet.errors import (
    ClusterError,
    ExecError,
    Forbidden,
)
from kubectl_ebpfnet.model.catalogue import TC_FILTERS
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import Place, Record, now

COMMAND_SECONDS = 20
"""Time limit of one command, in an image that has timeout(1)."""
CONNECT_SECONDS = 10.0
MAX_BYTES = 4 << 30
LONGEST_ADDRESS = 7000
"""Bytes of an exec's words in its address: some proxies refuse a request line of more than 8 KB."""


@dataclass(frozen=True, slots=True)
class PodExec:
    """Asks a container of a pod.

    Attributes:
        session: the connection.
        place: the place that the container answers for.
        container: to run commands in.
        by_shell: an image without a shell is not asked at all, which would take an exec a command.
    """

    session: Session
    place: Place
    container: Container
    by_shell: bool = False

    trusted: ClassVar[bool] = False
    """The image's `ip`, `cat` and the like are genuine and need no time limit."""

    def ask(
        self, questions: Sequence[Question], deadline: Deadline, spool: Callable[[], Spool] = Spool
    ) -> list[Record]:
        """Ask all questions in one exec, or in one exec a command where the image has no shell.
        What does not fit into the address of an exec is asked by another one, afterwards.

        Args:
            questions: to ask, in this order.
            deadline: of the whole run.
            spool: makes the buffer of one output.

        Returns:
            A record for each command that ran, and a record with the reason for the first that did
            not.
        """
        records: list[Record] = []
        for part in _that_fit(questions):
            records += self._ask_at_once(part, deadline, spool)
            if not any(record.ran for record in records):
                break
        return records

    def _lanes(
        self, questions: Sequence[Question]
    ) -> tuple[Sequence[Question], Sequence[Question]]:
        """Return what the script runs beside each other: nothing, in an image that may be slow."""
        return questions, ()

    def _ask_at_once(
        self, questions: Sequence[Question], deadline: Deadline, spool: Callable[[], Spool]
    ) -> list[Record]:
        left = deadline.left
        hang = HANG_SECONDS if left is None else min(HANG_SECONDS, round(left / 2, 2))
        first, second = self._lanes(questions)
        questions = [*first, *second]
        nonce, started = shell_script.new_nonce(), now()
        out, err = Splitter(nonce, spool), Splitter(nonce, StderrSpool)
        failure: ClusterError | None = None
        code = 0
        try:
            argv = shell_script.script_argv(
                first, nonce, COMMAND_SECONDS, hang, second=second, trusted=self.trusted
            )
            code = run_exec(
                self.session, self.container, argv, out.feed, err.feed, deadline,
                stdin=SCRIPT,
            )  # fmt: skip
        except ClusterError as error:
            failure = error
        except OSError as error:  # from the spool
            failure = ExecError(f"no room for the output: {error.strerror or error}")
        if not out.sections and _no_shell(failure, code):
            if self.by_shell:
                return [unavailable_record(self.place, EXEC, "the image has no shell")]
            return self._ask_without_shell(questions, deadline, spool)
        if failure is None and (code or not out.sections):  # the script itself exits with 0
            last = err.rest().read().decode("utf-8", "replace").strip().rpartition("\n")[2]
            failure = ExecError(
                f"its shell ended with exit code {code}" + (f": {last}" if last else "")
            )
        if isinstance(failure, Forbidden):
            denied = missing_permission(failure)
            return [unavailable_record(self.place, EXEC, str(failure), denied)]
        reason = error_sentence(failure, deadline) if failure else ""
        return list(
            shell_script.records(
                questions,
                out,
                err,
                started=started,
                error=reason,
                seconds=COMMAND_SECONDS,
                hang_seconds=hang,
            )
        )

    def _ask_without_shell(
        self, questions: Sequence[Question], deadline: Deadline, spool: Callable[[], Spool]
    ) -> list[Record]:
        missing: set[str] = set()
        records: list[Record] = []
        asked = [question for question in questions if question.fact is not TC_FILTERS]
        for question in asked:
            for argv in question.fact.forms:
                absent = f"the image has no shell and no {argv[0]}"
                record = unavailable_record(self.place, argv, absent)
                if argv[0] not in missing:
                    record = self._run_command(argv, deadline, spool) or record
                if record.error == absent:
                    missing.add(argv[0])
                records.append(record)
                if record.ok or record.denied:
                    break
        programs = sorted({argv[0] for question in asked for argv in question.fact.forms})
        if records and missing.issuperset(programs):  # once, instead of once a command
            reason = f"the image has no shell, and none of {', '.join(programs)}"
            return [unavailable_record(self.place, EXEC, reason)]
        return records

    def _run_command(
        self, argv: tuple[str, ...], deadline: Deadline, spool: Callable[[], Spool]
    ) -> Record | None:
        """Run one command in one exec; return None when the image lacks its program."""
        started = now()
        out, err = spool(), StderrSpool()
        try:
            code = run_exec(self.session, self.container, argv, out.write, err.write, deadline)
        except ClusterError as error:
            if isinstance(error, ExecError) and no_such_program(error):
                return None
            reason, denied = error_sentence(error, deadline), missing_permission(error)
            return unavailable_record(self.place, argv, reason, denied)
        except OSError as error:
            return unavailable_record(self.place, argv, f"no room for the output: {error}")
        errors = err.output().read()
        if code in (126, 127) and b"executable file not found" in errors:
            return None
        return Record(0, self.place, argv, code, out.output(), errors, started)


@dataclass(frozen=True, slots=True)
class AgentExec(PodExec):
    """Asks Cilium's agent of a node, whose image is trusted."""

    trusted: ClassVar[bool] = True

    def _lanes(
        self, questions: Sequence[Question]
    ) -> tuple[Sequence[Question], Sequence[Question]]:
        """Deal the questions out, as many starts of Cilium's program to either lane. What asks the
        agent ends the first lane: the second one's output waits in a pipe of 64 KiB meanwhile, and
        may wait, but what has a time limit must not.
        """
        api = [question for question in questions if asks_agent(question)]
        maps = [question for question in questions if _reads_maps(question)]
        # Long ones first; last those whose map is on few nodes, which count for half a start.
        maps.sort(key=lambda question: (bool(question.fact.maps), question.fact.by_flow))
        starts = len(api) + sum(0.5 if question.fact.maps else 1 for question in maps)
        before = max(0, round((starts + _OTHERS) / 2) - len(api))
        other = [question for question in questions if question not in (*api, *maps)]
        return [*maps[:before], *api], [*maps[before:], *other]


_OTHERS = 1
"""Starts that take as long as all commands that are not Cilium's."""


def _reads_maps(question: Question) -> bool:
    program = next(iter(question.fact.forms), ("",))[0]
    return program.startswith("cilium") and not asks_agent(question)


def _that_fit(questions: Sequence[Question]) -> Iterator[Sequence[Question]]:
    """Yield the questions in parts, each of which fits into the address of an exec."""
    room = LONGEST_ADDRESS - _address_bytes(shell_script.script_argv((), "0" * 32, COMMAND_SECONDS))
    part: list[Question] = []
    for question in questions:
        if part and _address_bytes(shell_script.lane_words([*part, question])) > room:
            yield part
            part = []
        part.append(question)
    if part:
        yield part


def _address_bytes(words: Sequence[str]) -> int:
    return len(urlencode([("command", word) for word in words])) + 1  # and the & behind them


def run_exec(
    session: Session,
    container: Container,
    argv: Sequence[str],
    on_stdout: Callable[[bytes], None],
    on_stderr: Callable[[bytes], None],
    deadline: Deadline,
    stdin: bytes | None = None,
) -> int:
    """Run a program in a container within a deadline.

    Args:
        session: the connection.
        container: where to run it.
        argv: the program and its arguments.
        on_stdout, on_stderr: take pieces of output.
        deadline: of the whole run.
        stdin: input; it must mark its own end, since stdin is not closed.

    Returns:
        The program's exit code.

    Raises:
        ClusterError: the deadline is over, or as exec_stream.
        OSError: of the sinks.
    """
    limits = limits_of(deadline)
    return exec_stream(
        session,
        container,
        argv,
        on_stdout=on_stdout,
        on_stderr=on_stderr,
        stdin=stdin,
        reads_to_end=False,
        limits=limits,
    )


def limits_of(deadline: Deadline) -> Limits:
    """Return the limits of an exec within a deadline.

    Raises:
        ClusterError: the deadline is over.
    """
    left = deadline.left
    if left is not None and left <= 0:
        raise ClusterError(deadline.missed("not asked"))
    return Limits(
        connect=CONNECT_SECONDS if left is None else min(CONNECT_SECONDS, left),
        idle=60.0 if left is None else min(60.0, left),
        total=left,
        max_bytes=MAX_BYTES,
    )


def _no_shell(failure: ClusterError | None, code: int) -> bool:
    if isinstance(failure, ExecError):
        return no_such_program(failure)
    # Some runtimes start nothing and report it as the program's own exit code.
    return failure is None and code in (126, 127)
