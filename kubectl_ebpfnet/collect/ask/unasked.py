"""Records of what could not be asked, and the reason in words. Imports little: what reads the API
server needs it before anything is asked.
"""

from __future__ import annotations

from collections.abc import Sequence

from kubectl_ebpfnet.collect.deadline import Deadline
from kubectl_ebpfnet.errors import ApiUnreachable, ClusterError, ExecTimeout, Forbidden
from kubectl_ebpfnet.model.evidence import InMemory, Place, Record

AGENT_HANGS = "the agent hangs"
EXEC = ("exec",)
"""argv of the record of a place where nothing could be run."""


def unavailable_record(place: Place, argv: Sequence[str], error: str, denied: str = "") -> Record:
    """Return the record of a question that could not be asked.

    Args:
        place: where it should have run.
        argv: the question.
        error: the reason.
        denied: the missing permission, "" for none.
    """
    return Record(0, place, tuple(argv), None, InMemory(), b"", "", error, denied)


def missing_permission(error: ClusterError) -> str:
    """Return the missing permission, as `create pods/exec in namespace x`, or ""."""
    if not isinstance(error, Forbidden):
        return ""
    where = f" in namespace {error.namespace}" if error.namespace else ""
    return f"{error.verb} {error.resource}{where}"


def error_sentence(error: ClusterError, deadline: Deadline) -> str:
    """Return an error as one sentence; if the run's own deadline is over, as its sentence."""
    # The time to connect ends with the deadline too.
    if isinstance(error, ExecTimeout | ApiUnreachable) and deadline.over:
        return deadline.missed()
    return " ".join(str(error).split())


def hangs(record: Record) -> bool:
    """Tell whether a record says that the agent of its place does not answer."""
    return record.error.endswith(AGENT_HANGS)
