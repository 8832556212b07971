"""Complete the objects that a command takes: their kinds, their names, and the ports of those that
are a destination."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kubectl_ebpfnet.cli.completion.candidates import NO_FILES, NO_SPACE, Candidates, Pairs
from kubectl_ebpfnet.cli.completion.names import Names, Port
from kubectl_ebpfnet.cli.object_words import is_name, kind_of

_RESOURCES = {
    "pod": "pods", "service": "services", "node": "nodes", "Deployment": "deployments",
    "StatefulSet": "statefulsets", "DaemonSet": "daemonsets", "ReplicaSet": "replicasets",
    "Job": "jobs",
}  # fmt: skip
_OF_A_WORKLOAD = {
    "deploy/": "a ready pod of a Deployment",
    "sts/": "a ready pod of a StatefulSet",
    "ds/": "a ready pod of a DaemonSet",
}


@dataclass(frozen=True, slots=True)
class Target:
    """What may stand at a place of the command line.

    Attributes:
        kinds: `pod/` → what it is, in the order in which they are shown.
        bare: the kind of a name without one, "" where each needs its kind.
        ports: a port may follow.
        namespace: the flag with its namespace.
    """

    kinds: Mapping[str, str]
    bare: str = ""
    ports: bool = False
    namespace: str = "--namespace"


_POD_OR_NODE = Target({"pod/": "a pod", **_OF_A_WORKLOAD, "node/": "a node"}, "pod")
NODE = Target({"node/": "a node"})
DESTINATION = Target(
    {"pod/": "a pod", "svc/": "a Service", "node/": "a node"},
    ports=True,
    namespace="--to-namespace",
)
SERVICE = Target({"svc/": "a Service"}, "svc")
_SOURCE = Target(
    {
        "pod/": "a pod",
        **_OF_A_WORKLOAD,
        "node/": "a node, as kubelet's probes; an address is a client outside",
    },
    "pod",
)
_PLACES: dict[str, tuple[Target, ...]] = {
    "path": (_SOURCE, DESTINATION),
    "trace": (_SOURCE, DESTINATION),
    "flows": (_POD_OR_NODE,),
    "programs": (_POD_OR_NODE,),
    "netkat": (NODE,),
    "node-pods": (NODE,),
    "probe-lb": (SERVICE,),
}


def place(command: str, at: int) -> Target | None:
    """Return what a positional word may be, None for nothing that is known.

    Args:
        command: its name.
        at: the word's number, from 0.
    """
    if command == "capture":
        return _POD_OR_NODE
    places = _PLACES.get(command, ())
    return places[at] if at < len(places) else None


def candidates(target: Target, word: str, names: Names, namespace: str) -> Candidates:
    """Return what a word may become: a kind, a name, or a name with a port.

    Args:
        target: what may stand there.
        word: what was typed.
        names: of objects.
        namespace: of the object, "" for the default.

    Raises:
        EbpfnetError: the names cannot be read.
    """
    head, slash, rest = word.partition("/")
    if not slash:
        kinds = [kind for kind in target.kinds if kind.startswith(word)]
        if kinds or not target.bare:
            return Candidates(target.kinds.items(), NO_FILES | NO_SPACE)
        return Candidates(_listed("", _RESOURCES[kind_of(target.bare) or "pod"], names, namespace))
    kind = kind_of(head)
    if kind is None:  # NAMESPACE/POD
        may = target.bare == "pod" or target.ports
        return Candidates(_listed(f"{head}/", "pods", names, head) if may and is_name(head) else ())
    if kind not in {kind_of(each.rstrip("/")) for each in target.kinds} and not (
        kind in ("ReplicaSet", "Job") and "deploy/" in target.kinds
    ):
        return Candidates()
    name, colon, _ = rest.partition(":")
    resource = _RESOURCES[kind]
    if colon and not (target.ports and kind in ("service", "pod") and is_name(name)):
        return Candidates()
    if colon:
        listed = names.ports(resource, namespace, name)
        return Candidates(_ports(f"{head}/{name}:", listed, by_name=kind == "service"))
    takes_port = target.ports and kind != "node"
    directive = NO_FILES | (NO_SPACE if takes_port else 0)
    return Candidates(_listed(f"{head}/", resource, names, namespace), directive)


def ports_of(names: Names, namespace: str, service: str) -> Candidates:
    """Return the ports of a Service, by name and number. Raises EbpfnetError as `candidates`."""
    found = names.ports("services", namespace, service)
    named = [(port.name, f"{port.number}/{port.protocol}") for port in found if port.name]
    return Candidates([*named, *((str(port.number), port.name) for port in found)])


def _listed(before: str, resource: str, names: Names, namespace: str) -> Pairs:
    return [(before + name, "") for name in names.of(resource, namespace) if is_name(name)]


def _ports(before: str, ports: Sequence[Port], *, by_name: bool) -> Pairs:
    """Yield each port by its name, which says its protocol too, and by its number."""
    for port in ports:
        suffix = "" if port.protocol == "tcp" else f"/{port.protocol}"
        if by_name and port.name:
            yield f"{before}{port.name}", f"{port.number}/{port.protocol}"
        yield f"{before}{port.number}{suffix}", port.name
