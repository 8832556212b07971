"""Bring this program's node side to a node pod that has another one, or none."""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.cluster.exec.pump import Limits
from kubectl_ebpfnet.cluster.exec.run import exec_stream, no_such_program
from kubectl_ebpfnet.cluster.exec.target import Container
from kubectl_ebpfnet.cluster.nodepods.sides import bring_argv, no_python, packed
from kubectl_ebpfnet.errors import ClusterError, ExecError

_MOST_BYTES = 64 << 10  # of what the program there says, which is a line
_NO_PROGRAM = (126, 127)  # some runtimes say so by the exit code


def bring(session: Session, container: Container, limits: Limits) -> None:
    """Send this program's node side to a node pod, unless it is there.

    Args:
        session: the connection.
        container: of the node pod.
        limits: time-outs.

    Raises:
        ClusterError: it could not be sent or unpacked.
    """
    data, said = packed(), bytearray()
    argv = bring_argv(len(data))
    try:
        code = exec_stream(
            session, container, argv, on_stdout=said.extend, on_stderr=said.extend, stdin=data,
            reads_to_end=False, limits=replace(limits, max_bytes=_MOST_BYTES),
        )  # fmt: skip
    except ExecError as error:
        raise no_python(container) if no_such_program(error) else error from None
    if code in _NO_PROGRAM:
        raise no_python(container)
    if code:
        last = said.decode("utf-8", "replace").strip().rpartition("\n")[2]
        why = f": {last}" if last else ""
        raise ClusterError(f"the node side could not be sent to {container}: exit code {code}{why}")
