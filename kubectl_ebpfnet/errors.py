"""Every error that a run of the tool can end with.

Each class has its exit code and may carry a hint at the next step. An unknown fact
about a packet is never an error: it is `UNKNOWN(why)` in a hop (kubectl_ebpfnet/model/path.py).

    EbpfnetError              exit 1
    ├── UsageError            exit 2   the command line is wrong
    ├── ParseError                     a record differs from what its producer prints
    ├── BundleError                    a capture file that cannot be read or written
    ├── KernelError                    node side: a kernel refused; knows the errno
    │   ├── Incomplete                 an answer lacks a part; names the part
    │   └── Unsupported                this kernel, or its configuration, lacks the feature
    └── ClusterError                   the cluster, or the connection to it, failed
        ├── KubeconfigError            no context, no file, a bad entry
        ├── ApiUnreachable             no answer: refused, timed out, TLS
        ├── Unauthorized               401
        ├── Forbidden                  403: knows the verb and the resource that are missing
        ├── NotFound                   404: knows the kind, name and namespace
        ├── ApiError                   any other failure status
        └── ExecError                  an exec without an exit code
            └── ExecTimeout            no output for longer than the caller allows
"""

from __future__ import annotations

from typing import ClassVar


class EbpfnetError(Exception):
    """The root of the tree.

    Attributes:
        exit_code: exit status of the process when this error ends the run.
        hint: one sentence that names the next step, or "".
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class RunEnded(BaseException):
    """A run ends quietly, and has not failed: who read it has seen enough."""


class UsageError(EbpfnetError):
    """The command line is wrong; no cluster was contacted."""

    exit_code = 2


class ParseError(EbpfnetError):
    """A record differs from what its producer prints.

    Attributes:
        source: the parsed command or file, e.g. "cilium-dbg bpf ct list".
        line: 1-based line number in the source, 0 for the whole source.
        problem: what is wrong with the line.
    """

    def __init__(self, source: str, line: int, problem: str) -> None:
        """Make the message from its parts.

        Args:
            source: the parsed command or file.
            line: 1-based line number in the source, 0 for the whole source.
            problem: what is wrong with the line.
        """
        super().__init__(f"{source}, line {line}: {problem}" if line else f"{source}: {problem}")
        self.source = source
        self.line = line
        self.problem = problem


class BundleError(EbpfnetError):
    """A capture cannot be read or written."""


class KernelError(EbpfnetError):
    """A kernel refused a call, on the node side.

    Attributes:
        errno: errno(3) of the call, 0 without one.
    """

    def __init__(self, message: str, errno: int = 0, *, hint: str = "") -> None:
        """Keep the errno beside the message.

        Args:
            message: the refused call and the reason.
            errno: errno(3) of the call, 0 without one.
            hint: the next step, or "".
        """
        super().__init__(message, hint=hint)
        self.errno = errno


class Incomplete(KernelError):
    """A part of an answer could not be read. Raised after the other facts, which stay valid."""


class Unsupported(KernelError):
    """This kernel lacks a feature: too old, or built without it. Tests turn it into a skip."""


class ClusterError(EbpfnetError):
    """The cluster refused, or the connection to it failed."""


class KubeconfigError(ClusterError):
    """The kubeconfig has no such context, user or cluster, or cannot be read."""


class ApiUnreachable(ClusterError):
    """The API server gave no answer."""


class Unauthorized(ClusterError):
    """401: the credentials are missing, wrong or too old."""


_CHANGES = (
    ("pods", "create"), ("pods", "delete"), ("services", "create"), ("services", "delete"),
)  # fmt: skip


def tier_of(verb: str, resource: str, namespace: str = "") -> str:
    """Return the least tier with a right (model/tiers.py), and what prints it."""
    tier = "agents"
    changes = resource == "secrets" or (resource, verb) in _CHANGES
    if changes or (resource == "namespaces" and verb != "get"):
        tier = "deploy"
    elif resource == "pods/exec" and namespace == "ebpfnet":  # of installed node pods
        tier = "node-pods"
    elif resource == "pods/exec" and namespace.startswith("ebpfnet-"):  # of a run's own
        tier = "deploy"
    return f"tier {tier}, {print_rbac(tier)}"


def tier_of_words(denied: str) -> str:
    """Return the tier of a record's `denied`: `create pods/exec in namespace x`."""
    right, _, namespace = denied.partition(" in namespace ")
    verb, _, resource = right.partition(" ")
    return tier_of(verb, resource, namespace)


def print_rbac(tier: str) -> str:
    """Return the command that prints a tier's roles."""
    return f"kubectl ebpfnet doctor --print-rbac={tier}"


class Forbidden(ClusterError):
    """403.

    Attributes:
        verb: the RBAC verb that is missing, e.g. "create".
        resource: the resource that the verb is missing on, e.g. "pods/exec".
        namespace: namespace of the resource, "" for the whole cluster.
    """

    def __init__(self, verb: str, resource: str, namespace: str = "", message: str = "") -> None:
        """Make the message and a hint at the Role that is missing.

        Args:
            verb: the missing RBAC verb.
            resource: the resource that the verb is missing on.
            namespace: namespace of the resource, "" for the whole cluster.
            message: replaces the usual message, unless "".
        """
        where = f" in namespace {namespace}" if namespace else ""
        role = "Role" if namespace else "ClusterRole"
        tier = tier_of(verb, resource, namespace)
        super().__init__(
            message or f"this user may not {verb} {resource}{where}",
            hint=f'a {role} with verb "{verb}" on "{resource}"{where} allows it ({tier})',
        )
        self.verb = verb
        self.resource = resource
        self.namespace = namespace


class NotFound(ClusterError):
    """404.

    Attributes:
        kind: lower-case singular, e.g. "pod".
        name: name of the missing object.
        namespace: namespace of the object, "" for none.
    """

    def __init__(self, kind: str, name: str, namespace: str = "", *, hint: str = "") -> None:
        """Make the message from its parts.

        Args:
            kind: lower-case singular, e.g. "pod".
            name: name of the missing object.
            namespace: namespace of the object, "" for none.
            hint: the next step, or "".
        """
        where = f" in namespace {namespace}" if namespace else ""
        super().__init__(f'{kind} "{name}" not found{where}', hint=hint)
        self.kind = kind
        self.name = name
        self.namespace = namespace


class ApiError(ClusterError):
    """Any other failure status of the API server.

    Attributes:
        status: the HTTP status code.
    """

    def __init__(self, status: int, message: str, *, hint: str = "") -> None:
        """Keep the status beside the message.

        Args:
            status: HTTP status code.
            message: the failed request and the reason.
            hint: the next step, or "".
        """
        super().__init__(message, hint=hint)
        self.status = status


class ExecError(ClusterError):
    """An exec gave no exit code: it did not start, or the connection broke."""


class ExecTimeout(ExecError):
    """An exec gave no output for longer than the caller allows."""
