"""Tiers of rights: what a user needs for a use of the program, least first, as roles of RBAC.

Made of RIGHTS, so that what `doctor` checks and what `doctor --print-rbac` prints is one list.
RBAC: Kubernetes docs, "Using RBAC Authorization". Who is bound to a role is not said here: a user's
name, and the namespaces of their pods, are known to whoever binds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from enum import StrEnum

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.doctor import Checkup
from kubectl_ebpfnet.model.node_pods import INSTALLED_NAMESPACE
from kubectl_ebpfnet.model.rights import COMMANDS, RIGHTS, Right

EXEC = "pods/exec"
AGENTS_NAMESPACE = "kube-system"


class Tier(StrEnum):
    """What a user may use. Each one's value is the word of --print-rbac."""

    CAPTURE = "capture"
    AGENTS = "agents"
    NODE_PODS = "node-pods"
    DEPLOY = "deploy"


@dataclass(frozen=True, slots=True)
class Role:
    """A ClusterRole.

    Attributes:
        name: its name.
        about: what it is for, one line.
        rights: what it gives.
        namespaces: where a RoleBinding gives it, () for a ClusterRoleBinding. `NAMESPACE` stands
            for one that whoever binds chooses.
        flag: the only use of it, "" for what every run of its tier needs.
    """

    name: str
    about: str
    rights: tuple[Right, ...]
    namespaces: tuple[str, ...] = ()
    flag: str = ""


PLACE = "NAMESPACE"


def _of(*uses: str) -> tuple[Right, ...]:
    return tuple(right for right in RIGHTS if set(uses) & set(right.uses))


_READS = tuple(right for right in _of(*COMMANDS) if right.resource != EXEC)
_EXECS = tuple(right for right in RIGHTS if right.resource == EXEC)
_EXEC = Role("ebpfnet-exec", "commands in pods; bound in their namespaces alone", _EXECS)
_READ = Role("ebpfnet-read", "objects of the API", _READS)
_COPIES = tuple(
    Right(verb, "services", effect="probe-lb --verify-policies makes no copies of a Service")
    for verb in ("create", "delete", "get", "list")
)
ROLES: dict[Tier, tuple[Role, ...]] = {
    Tier.CAPTURE: (),
    Tier.AGENTS: (
        _READ,
        replace(_EXEC, namespaces=(AGENTS_NAMESPACE, PLACE)),
    ),
    Tier.NODE_PODS: (
        _READ,
        replace(_EXEC, namespaces=(INSTALLED_NAMESPACE,)),
    ),
    Tier.DEPLOY: (
        _READ,
        Role("ebpfnet-deploy", "node pods, made and deleted by each run", _of("node-pod")),
        Role(
            "ebpfnet-pull-secret",
            "a copy of the Secret; give get on the original by a Role of its own",
            _of("pull-secret"),
            flag="--image-pull-secret",
        ),
        Role(
            "ebpfnet-probe-copies",
            "copies of a Service, made and deleted",
            _COPIES,
            flag="probe-lb --verify-policies",
        ),
    ),
}
ABOUT = {
    Tier.CAPTURE: "read captures (--from): no right at all, no cluster is asked",
    Tier.AGENTS: "exec in Cilium's agents (maybe root on their nodes) and in pods asked about",
    Tier.NODE_PODS: "exec in node pods that are there (maybe root on their nodes); creates nothing",
    Tier.DEPLOY: "create node pods, in a namespace of each run (maybe root on every node)",
}


def rules(rights: Iterable[Right]) -> list[tuple[dict[str, list[str]], str]]:
    """Return rules of a role, each with what is not shown without it.

    Resources that share their group, their verbs and their effects share a rule.
    """
    of_resource: dict[tuple[str, str], dict[str, None]] = {}
    effects: dict[tuple[str, str], dict[str, None]] = {}
    for right in rights:
        key = (right.resource, right.name)
        of_resource.setdefault(key, {})[right.verb] = None
        effects.setdefault(key, {})[right.effect] = None
    merged: dict[tuple[str, str, tuple[str, ...], str], list[str]] = {}
    for (resource, name), verbs in of_resource.items():
        plain, _, group = resource.partition(".")
        effect = "; ".join(effects[resource, name])
        merged.setdefault((group, name, tuple(sorted(verbs)), effect), []).append(plain)
    return [
        (
            {
                "apiGroups": [group],
                "resources": resources,
                **({"resourceNames": [name]} if name else {}),
                "verbs": list(verbs),
            },
            effect,
        )
        for (group, name, verbs, effect), resources in merged.items()
    ]


@dataclass(frozen=True, slots=True)
class Held:
    """Whether a user has a tier.

    Attributes:
        tier: the tier.
        needed: how many rights it has.
        denied: those that this user lacks.
        known: the API server judged all of them.
    """

    tier: Tier
    needed: int
    denied: tuple[Right, ...]
    known: bool

    @property
    def held(self) -> bool | None:
        """None when the API server did not say."""
        return False if self.denied else True if self.known else None


def held(report: Checkup) -> tuple[Held, ...]:
    """Return what this user has of each tier that needs rights; () for a capture.

    exec counts where it is allowed in the namespace that the tier asks in; in that of pods at both
    ends by -n.
    """
    if not report.rights:
        return ()
    judged = {(right.verb, right.resource, right.name): right for right in report.rights}
    agents = report.cilium.namespace or AGENTS_NAMESPACE
    found = []
    for tier, roles in ROLES.items():
        names = {AGENTS_NAMESPACE: agents, PLACE: report.connection.namespace}
        denied: dict[tuple[str, str, str], Right] = {}
        unknown, needed = False, set()
        for role in roles:
            places = [names.get(place, place) for place in role.namespaces] or [""]
            for right in role.rights if not role.flag else ():
                key = (right.verb, right.resource, right.name)
                mine = judged[key]
                needed.add(key)
                if mine.effect.startswith("nothing: "):
                    continue  # this API server does not check it
                allowed = [mine.within(place) for place in places]
                unknown |= None in allowed
                if False in allowed:
                    denied[key] = mine
        if roles:
            found.append(Held(tier, len(needed), tuple(denied.values()), not unknown))
    return tuple(found)
