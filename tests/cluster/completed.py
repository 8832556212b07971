"""Run a program in a container of the fake API server, and keep its output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.cluster.exec.run import exec_stream
from kubectl_ebpfnet.cluster.exec.target import Container


@dataclass(frozen=True, slots=True)
class Completed:
    """The result of a program: exit code, stdout and stderr."""

    exit_code: int
    stdout: bytes
    stderr: bytes


def exec_run(session: Session, container: Container, argv: Sequence[str], **more: Any) -> Completed:
    """Run `exec_stream` and collect its output.

    Args:
        session: the connection to the fake API server.
        container: the container to run in.
        argv: the program and its arguments.
        more: further arguments of `exec_stream`.
    """
    out: list[bytes] = []
    err: list[bytes] = []
    code = exec_stream(session, container, argv, on_stdout=out.append, on_stderr=err.append, **more)
    return Completed(code, b"".join(out), b"".join(err))
