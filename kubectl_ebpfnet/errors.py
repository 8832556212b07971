"""Every error that a run of the tool can end with.

Each class carries its exit code and may carry a hint: what to do next. What is merely not known
about a packet is never an error: it is `UNKNOWN(why)` in a hop (kubectl_ebpfnet/model/path.py).

    EbpfnetError              exit 1
    ├── UsageError            exit 2   the words on the command line
    ├── ParseError                     a record that is not what its producer prints
    ├── BundleError                    a capture file that cannot be read or written
    ├── KernelError                    the node side's: what a kernel refused; knows the errno
    │   ├── Incomplete                 an answer that was given lacks a part; says which
    │   └── Unsupported                this kernel, or this build of it, cannot do it at all
    └── ClusterError                   what the cluster, or the way to it, said
        ├── KubeconfigError            no context, no file, a bad entry
        ├── ApiUnreachable             no answer: refused, timed out, TLS
        ├── Unauthorized               401
        ├── Forbidden                  403: knows the verb and the resource that are missing
        ├── NotFound                   404: knows the kind, name and namespace
        ├── ApiError                   any other answer that is not a success
        └── ExecError                  an exec that gave no exit code
            └── ExecTimeout            silence for longer than the caller allows
"""

from __future__ import annotations

from typing import ClassVar


class EbpfnetError(Exception):
    """The root of the tree.

    Attributes:
        exit_code: the process's exit status when this error ends the run.
        hint: one sentence saying what to do next, or "".
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class UsageError(EbpfnetError):
    """The command line cannot be understood; nothing was asked of any cluster."""

    exit_code = 2


class ParseError(EbpfnetError):
    """A record that is not what its producer prints.

    Attributes:
        source: what was parsed, e.g. "cilium-dbg bpf ct list".
        line: 1-based line number in that source, 0 when the whole is meant.
    """

    def __init__(self, source: str, line: int, problem: str) -> None:
        super().__init__(f"{source}, line {line}: {problem}" if line else f"{source}: {problem}")
        self.source = source
        self.line = line
        self.problem = problem


class BundleError(EbpfnetError):
    """A capture that cannot be read or written."""


class KernelError(EbpfnetError):
    """What a kernel refused, on the node side.

    Attributes:
        errno: errno(3) of the call, 0 when there is none.
    """

    def __init__(self, message: str, errno: int = 0, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.errno = errno


class Incomplete(KernelError):
    """Raised behind the facts of an answer: some of it could not be read. The facts stand."""


class Unsupported(KernelError):
    """This kernel cannot do it: too old, or built without it. Tests turn it into a skip."""


class ClusterError(EbpfnetError):
    """Something that the cluster, or the way to it, said."""


class KubeconfigError(ClusterError):
    """The kubeconfig has no such context, user or cluster, or cannot be read."""


class ApiUnreachable(ClusterError):
    """The API server gave no answer."""


class Unauthorized(ClusterError):
    """401: the credentials are missing, wrong or too old."""


_POD_CHANGES = (("pods", "create"), ("pods", "delete"))


class Forbidden(ClusterError):
    """403.

    Attributes:
        verb: the RBAC verb that is missing, e.g. "create".
        resource: the resource it is missing on, e.g. "pods/exec".
        namespace: where, or "" for the whole cluster.
    """

    def __init__(self, verb: str, resource: str, namespace: str = "", message: str = "") -> None:
        where = f" in namespace {namespace}" if namespace else ""
        changes = resource in ("namespaces", "secrets") or (resource, verb) in _POD_CHANGES
        file = "docs/rbac-node-pod.yaml" if changes else "docs/rbac.yaml"
        super().__init__(
            message or f"this user may not {verb} {resource}{where}",
            hint=f'a Role with verb "{verb}" on "{resource}"{where} allows it ({file})',
        )
        self.verb = verb
        self.resource = resource
        self.namespace = namespace


class NotFound(ClusterError):
    """404.

    Attributes:
        kind: lower-case singular, e.g. "pod".
        name: the name that was asked for.
        namespace: where it was looked for, or "".
    """

    def __init__(self, kind: str, name: str, namespace: str = "", *, hint: str = "") -> None:
        where = f" in namespace {namespace}" if namespace else ""
        super().__init__(f'{kind} "{name}" not found{where}', hint=hint)
        self.kind = kind
        self.name = name
        self.namespace = namespace


class ApiError(ClusterError):
    """Any other answer that is not a success.

    Attributes:
        status: the HTTP status code.
    """

    def __init__(self, status: int, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class ExecError(ClusterError):
    """An exec that gave no exit code: not started, or the connection broke."""


class ExecTimeout(ExecError):
    """An exec that was silent for longer than the caller allows."""
