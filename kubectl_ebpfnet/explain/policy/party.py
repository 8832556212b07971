"""Both ends of a packet as the selectors of policies see them: their labels, and what they match.

An end of which not all labels were read leaves undecided what such a label would change.

Source: Cilium pkg/labels, pkg/policy/api/selector.go; the label selectors of Kubernetes'
apimachinery (NotIn and DoesNotExist match where the label is missing).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.kube import ContainerPort
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.policy import Requirement, Selector


@dataclass(frozen=True, slots=True)
class Hit:
    """Whether something matches: `matches` is None where that cannot be told, and `why` says why
    not."""

    matches: bool | None
    why: str = ""


YES, NO = Hit(True), Hit(False)


def any_of(hits: Iterable[Hit]) -> Hit:
    """Return whether one of them matches."""
    undecided = None
    for hit in hits:
        if hit.matches:
            return hit
        if hit.matches is None:
            undecided = undecided or hit
    return undecided or NO


def all_of(hits: Iterable[Hit]) -> Hit:
    """Return whether all of them match."""
    undecided = None
    for hit in hits:
        if hit.matches is False:
            return hit
        if hit.matches is None:
            undecided = undecided or hit
    return undecided or YES


@dataclass(frozen=True)
class Party:
    """An end of a packet.

    Attributes:
        labels: of its identity, with their sources: `k8s:app=web`, `reserved:host`.
        unread: labels that it may have besides, which nobody read: `kube-apiserver` is a reserved
            one, `fqdn:` all of a source, `*` any.
        why: why they were not read.
        address: None when not known.
        outside: it has no identity of the cluster, so that CIDRs select it; None when not known.
        ports: named ports of its pod, None when not known.
        namespace: of its pod, "" for others.
    """

    labels: frozenset[str]
    unread: frozenset[str] = frozenset()
    why: str = ""
    address: Address | None = None
    outside: bool | None = None
    ports: tuple[ContainerPort, ...] | None = None
    namespace: str = ""

    @cached_property
    def values(self) -> dict[str, dict[str, str]]:
        """The labels: key → source → value."""
        found: dict[str, dict[str, str]] = {}
        for label in sorted(self.labels):
            source, _, rest = label.partition(":")
            key, _, value = rest.partition("=")
            found.setdefault(key, {})[source] = value
        return found

    def has(self, source: str, key: str) -> Hit:
        """Tell whether it has a label."""
        known = self.values.get(key, {})
        if source in known or (source == "any" and known):
            return YES
        if not self.unread:
            return NO
        may = {"*", f"{source}:", f"{source}:{key}"} & self.unread
        if may or (source == "any" and self._may_have(key)):
            return Hit(None, self.why)
        return NO

    def _may_have(self, key: str) -> bool:
        return any(one.endswith((":", f":{key}")) for one in self.unread)

    def value(self, source: str, key: str) -> str | None:
        """Return a label's value, None where it has none; `any` takes the first source."""
        known = self.values.get(key, {})
        return next(iter(known.values()), None) if source == "any" else known.get(source)


def selects(selector: Selector, party: Party) -> Hit:
    """Tell whether a selector selects an end."""
    return all_of(_fulfils(requirement, party) for requirement in selector)


def _fulfils(requirement: Requirement, party: Party) -> Hit:
    there = party.has(requirement.source, requirement.key)
    operator = requirement.operator
    if operator not in ("In", "NotIn", "Exists", "DoesNotExist"):
        return Hit(None, f"the operator “{operator}” is not known")
    if there.matches is None:
        return there
    positive = operator in ("In", "Exists")
    if not there.matches or operator in ("Exists", "DoesNotExist"):
        return Hit(there.matches is positive)
    value = party.value(requirement.source, requirement.key)
    return Hit((value in requirement.values) is positive)
