"""Runs a program in a container of the fake API server, and keeps all that it wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.cluster.exec.run import exec_stream
from kubectl_ebpfnet.cluster.exec.target import Container


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that ran to its end: exit code and what it wrote, to the byte."""

    exit_code: int
    stdout: bytes
    stderr: bytes


def exec_run(session: Session, container: Container, argv: Sequence[str], **more: Any) -> Completed:
    """Like `exec_stream`, whose other arguments `more` are."""
    out: list[bytes] = []
    err: list[bytes] = []
    code = exec_stream(session, container, argv, on_stdout=out.append, on_stderr=err.append, **more)
    return Completed(code, b"".join(out), b"".join(err))
