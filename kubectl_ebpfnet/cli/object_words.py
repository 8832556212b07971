"""Read `TYPE/NAME` and `NAMESPACE/POD` of the command line, without I/O.

Types and their short names are kubectl's (`kubectl api-resources`). Names: Kubernetes docs,
"Object Names and IDs" (RFC 1123). `NAMESPACE/POD` is how hubble writes a pod.
"""

from __future__ import annotations

import re

from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.model.dataclass import dataclass

_TYPES = {
    "pod": ("pod", "po", "pods"),
    "service": ("service", "svc", "services"),
    "node": ("node", "no", "nodes"),
    "Deployment": ("deployment", "deploy", "deployments"),
    "StatefulSet": ("statefulset", "sts", "statefulsets"),
    "DaemonSet": ("daemonset", "ds", "daemonsets"),
    "ReplicaSet": ("replicaset", "rs", "replicasets"),
    "Job": ("job", "jobs"),
}
_KIND_OF = {word: kind for kind, words in _TYPES.items() for word in words}
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job")
# Types of kubectl that have no packets: never the name of a namespace in NAMESPACE/POD.
_OTHER_TYPES = frozenset({
    "cm", "configmap", "configmaps", "secret", "secrets", "ns", "namespace", "namespaces", "ep",
    "endpoints", "endpointslice", "endpointslices", "ing", "ingress", "ingresses", "gateway",
    "gateways", "netpol", "networkpolicy", "networkpolicies", "cnp", "ccnp", "cep", "cj",
    "cronjob", "cronjobs", "sa", "serviceaccount", "serviceaccounts", "pv", "pvc", "crd",
})  # fmt: skip

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LONGEST_SHOWN = 100


@dataclass(frozen=True, slots=True)
class ObjectWord:
    """An object as it was typed.

    Attributes:
        kind: `pod`, `service`, `node`, or the kind of a workload.
        text: `type/name`, with the type as typed and `pod` for a bare name.
        name: what stands after the type, not yet checked.
        namespace: of `NAMESPACE/POD`, "" for other forms.
        typed: a type or a namespace stands before the name.
    """

    kind: str
    text: str
    name: str
    namespace: str = ""
    typed: bool = True


def kind_of(word: str) -> str | None:
    """Return the kind that a type's name or short name stands for, None for other words."""
    return _KIND_OF.get(word.lower())


def shown(word: str) -> str:
    """Return a word in quotes, cut where it is long, for an error."""
    return repr(word if len(word) <= _LONGEST_SHOWN else f"{word[:_LONGEST_SHOWN]}…")


def split(word: str, example: str) -> ObjectWord:
    """Return the type and the rest of `TYPE/REST`, `NAMESPACE/REST` or a bare name, which is a
    pod's.

    Args:
        word: as typed.
        example: hint of the error.

    Raises:
        UsageError: nothing was typed, or an unknown type.
    """
    if not word.strip():
        raise UsageError("a name is empty", hint=example)
    type_word, slash, rest = word.partition("/")
    if not slash:
        return ObjectWord("pod", f"pod/{word}", word, typed=False)
    kind = kind_of(type_word)
    if kind is not None:
        short = "pod" if kind == "pod" else type_word.lower()
        return ObjectWord(kind, f"{short}/{rest}", rest)
    if _LABEL.fullmatch(type_word) and type_word not in _OTHER_TYPES and "/" not in rest:
        return ObjectWord("pod", f"pod/{rest}", rest, type_word)
    near = f"e.g. pod/{rest}" if _NAME.fullmatch(rest) else example
    raise UsageError(f"{shown(word)}: unknown type {shown(type_word)}", hint=near)


def is_type(word: str) -> bool:
    """Tell whether a word is a type of kubectl, or its short name."""
    return kind_of(word) is not None


def is_name(word: str) -> bool:
    """Tell whether a word can be an object's name."""
    return len(word) <= 253 and _NAME.fullmatch(word) is not None


def checked_name(word: str, name: str) -> str:
    """Return the name in a word.

    Args:
        word: as typed, for the error.
        name: what stands where a name belongs.

    Raises:
        UsageError: it is not a name; the hint says what it looks like.
    """
    if not name:
        raise UsageError(f"{shown(word)}: the name is missing", hint=f"e.g. {word}NAME")
    if is_name(name):
        return name
    if _NAME.fullmatch(name.lower()):
        hint = f"names are lower case: {name.lower()}"
    elif "/" in name:
        hint = "give the namespace with -n, the destination's with --to-namespace"
    elif ":" in name:
        hint = "only a destination has a port"
    else:
        hint = "a name has a-z, 0-9, '-' and '.', and starts and ends with a letter or digit"
    raise UsageError(f"{shown(word)}: {shown(name)} is not a valid name", hint=hint)
