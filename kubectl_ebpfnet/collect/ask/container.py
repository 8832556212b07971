"""Ask a container questions by exec. A place that cannot be asked gives a record with the reason;
nothing here raises for it.

An image without a shell is asked by one exec for each form. A missing program is a record too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kubectl_ebpfnet.capture.open import now
from kubectl_ebpfnet.capture.spool import Spool, StderrSpool
from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.cluster.exec.run import Limits, exec_stream, no_such_program
from kubectl_ebpfnet.cluster.exec.target import Container
from kubectl_ebpfnet.collect.ask import shell_script
from kubectl_ebpfnet.collect.ask.shell_script import ShellQuestion, Splitter
from kubectl_ebpfnet.collect.pool import Deadline, Pool
from kubectl_ebpfnet.errors import ClusterError, ExecError, ExecTimeout, Forbidden
from kubectl_ebpfnet.model.evidence import Place, PlaceKind, Record

COMMAND_SECONDS = 20
"""Time limit of one command, in an image that has timeout(1)."""
CONNECT_SECONDS = 10.0
MAX_BYTES = 4 << 30
_AT_ONCE = 4
EXEC = ("exec",)
"""argv of the record of a place where nothing could be run."""


@dataclass(frozen=True, slots=True)
class ExecTarget:
    """A place, and the container that answers for it."""

    place: Place
    container: Container


def ask(
    session: Session,
    target: ExecTarget,
    questions: Sequence[ShellQuestion],
    deadline: Deadline,
    spool: Callable[[], Spool] = Spool,
) -> list[Record]:
    """Ask all questions in one exec, or in one exec a command where the image has no shell.

    Args:
        session: the connection.
        target: the container to ask.
        questions: to ask, in this order.
        deadline: of the whole run.
        spool: makes the buffer of one output.

    Returns:
        A record for each command that ran, and a record with the reason for the first that did not.
    """
    if not questions:
        return []
    nonce, started = shell_script.new_nonce(), now()
    out, err = Splitter(nonce, spool), Splitter(nonce, StderrSpool)
    failure: ClusterError | None = None
    code = 0
    try:
        agent = target.place.kind is PlaceKind.AGENT
        argv = shell_script.script_argv(questions, nonce, COMMAND_SECONDS, trusted=agent)
        code = run_exec(session, target.container, argv, out.feed, err.feed, deadline)
    except ClusterError as error:
        failure = error
    except OSError as error:  # from the spool
        failure = ExecError(f"no room for the output: {error.strerror or error}")
    if not out.sections and _no_shell(failure, code):
        return _ask_without_shell(session, target, questions, deadline, spool)
    if failure is None and not out.sections:
        records = err.rest().read().decode("utf-8", "replace").strip().rpartition("\n")[2]
        failure = ExecError(
            f"its shell ended with exit code {code}" + (f": {records}" if records else "")
        )
    if isinstance(failure, Forbidden):
        denied = missing_permission(failure)
        return [shell_script.unavailable_record(target.place, EXEC, str(failure), denied)]
    reason = error_sentence(failure, deadline) if failure else ""
    return list(
        shell_script.records(
            questions, out, err, target.place,
            started=started, error=reason, seconds=COMMAND_SECONDS,
        )
    )  # fmt: skip


def missing_permission(error: ClusterError) -> str:
    """Return the missing permission, as `create pods/exec in namespace x`, or ""."""
    if not isinstance(error, Forbidden):
        return ""
    where = f" in namespace {error.namespace}" if error.namespace else ""
    return f"{error.verb} {error.resource}{where}"


def error_sentence(error: ClusterError, deadline: Deadline) -> str:
    """Return an error as one sentence; if the run's own deadline is over, it names --timeout."""
    if isinstance(error, ExecTimeout) and deadline.over:
        return f"no end within the {deadline} that --timeout allows"
    return " ".join(str(error).split())


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
        ExecTimeout: the deadline is over.
        ClusterError, OSError: as exec_stream, and the exceptions of the sinks.
    """
    left = deadline.left
    if left is not None and left <= 0:
        raise ExecTimeout(f"not asked: the {deadline} that --timeout allows were over")
    limits = Limits(
        connect=CONNECT_SECONDS if left is None else min(CONNECT_SECONDS, left),
        idle=60.0 if left is None else min(60.0, left),
        total=left,
        max_bytes=MAX_BYTES,
    )
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


def _no_shell(failure: ClusterError | None, code: int) -> bool:
    if isinstance(failure, ExecError):
        return no_such_program(failure)
    # Some runtimes start nothing and report it as the program's own exit code.
    return failure is None and code in (126, 127)


def _ask_without_shell(
    session: Session,
    target: ExecTarget,
    questions: Sequence[ShellQuestion],
    deadline: Deadline,
    spool: Callable[[], Spool],
) -> list[Record]:
    missing: set[str] = set()

    def ask_forms(question: ShellQuestion) -> list[Record]:
        found = []
        for form in question.forms:
            if form[0] in missing:
                record = _program_missing(target, form)
            else:
                record = _run_form(session, target, form, deadline, spool)
                if not record.ran and record.error == _program_missing(target, form).error:
                    missing.add(form[0])
            found.append(record)
            if record.ok or record.denied:
                break
        return found

    pool = Pool(_AT_ONCE)
    futures = [pool.start(lambda question=question: ask_forms(question)) for question in questions]  # type: ignore[misc]
    records = [record for future in futures for record in future.result()]
    programs = sorted({form[0] for question in questions for form in question.forms})
    if records and missing.issuperset(programs):  # once, instead of once a command
        reason = f"the image has no shell, and none of {', '.join(programs)}"
        return [shell_script.unavailable_record(target.place, EXEC, reason)]
    return records


def _program_missing(target: ExecTarget, form: tuple[str, ...]) -> Record:
    return shell_script.unavailable_record(
        target.place, form, f"the image has no shell and no {form[0]}"
    )


def _run_form(
    session: Session,
    target: ExecTarget,
    form: tuple[str, ...],
    deadline: Deadline,
    spool: Callable[[], Spool],
) -> Record:
    started = now()
    out, err = spool(), StderrSpool()
    try:
        code: int | None = run_exec(session, target.container, form, out.write, err.write, deadline)
    except ClusterError as error:
        if isinstance(error, ExecError) and no_such_program(error):
            return _program_missing(target, form)
        return shell_script.unavailable_record(
            target.place, form, error_sentence(error, deadline), missing_permission(error)
        )
    except OSError as error:
        return shell_script.unavailable_record(
            target.place, form, f"no room for the output: {error}"
        )
    errors = err.output().read()
    if code in (126, 127) and b"executable file not found" in errors:
        return _program_missing(target, form)
    return Record(0, target.place, form, code, out.output(), errors, started)
