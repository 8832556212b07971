"""The verdict of an endpoint's policy map: allowed, denied, or undecided and why.

Source: Cilium bpf/lib/policy.h (__policy_can_access) and pkg/maps/policymap, cilium-facts 3.8. The
datapath looks the packet up twice, with the remote identity and with identity 0 (any), each time by
longest prefix of protocol and port. Of the two entries the one with the higher precedence wins
(since 1.19), before that one that denies; then the longer prefix, then that of the identity.
Nothing found is "Policy denied" (133); a deny entry is "Policy denied by denylist" (181).

What cannot be told of an entry (the labels of its identity, the packet's port) leaves the verdict
undecided where the entry would change it, and only there.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_network

from kubectl_ebpfnet.model.cilium import RESERVED_IDENTITIES, PolicyEntry
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import Address, has_ports, protocol_name

WORLD_IDENTITIES = frozenset({2, 9, 10})
"""world, world-ipv4, world-ipv6: which of them a map uses depends on dual stack."""
ANY_PORT = (0, 65535)


@dataclass(frozen=True, slots=True)
class Remote:
    """The other end of a packet, as a policy map names it.

    Attributes:
        identity: security identity, None when not known.
        labels: of this identity, () when not known.
        address: None when not known.
    """

    identity: int | None
    labels: frozenset[str] = frozenset()
    address: Address | None = None


@dataclass(frozen=True, slots=True)
class PolicyVerdict:
    """Whether a packet may pass.

    Attributes:
        allowed: None when the map cannot tell.
        entry: the entry that decided, or that keeps it undecided; None when no entry matched.
        reason: Cilium's drop reason; for an undecided verdict what is missing; "" when allowed.
    """

    allowed: bool | None
    entry: PolicyEntry | None
    reason: str = ""


def decide(
    entries: Sequence[PolicyEntry],
    endpoint_id: int,
    direction: str,
    remote: Remote,
    protocol: int,
    port: int | None,
) -> PolicyVerdict:
    """Look a packet up in an endpoint's policy map.

    Args:
        entries: of any endpoints.
        endpoint_id: whose map is meant.
        direction: `ingress` or `egress`.
        remote: the remote side.
        protocol: IANA number.
        port: destination port, or ICMP type; None when not known, or without ports.

    Returns:
        The verdict; undecided when an entry of which it cannot be told whether it matches would
        change it.
    """
    sure: list[PolicyEntry] = []
    perhaps: list[tuple[PolicyEntry, str]] = []
    for entry in entries:
        if (entry.endpoint_id, entry.direction) != (endpoint_id, direction):
            continue
        by_identity, by_port = identity_hit(entry, remote), _l4_hit(entry, protocol, port)
        if by_identity is False or by_port is False:
            continue
        if by_identity and by_port:
            sure.append(entry)
        else:
            perhaps.append((entry, _unresolved(entry, by_identity)))
    verdict = _winner(sure)
    for entry, why in perhaps:
        if _effect(_winner([*sure, entry])) != _effect(verdict):
            return PolicyVerdict(None, entry, why)
    if _effect(_winner([*sure, *(entry for entry, _ in perhaps)])) != _effect(verdict):
        return PolicyVerdict(None, *perhaps[0])
    return verdict


def identity_hit(entry: PolicyEntry, remote: Remote) -> bool | None:
    """Tell whether an entry is for the remote identity; None where it cannot be told.

    An identity has exactly its labels: another set of labels is another identity. Where the remote
    labels are not known, an entry for a prefix without the remote address is for another identity.
    """
    if entry.identity == 0:
        return True
    if entry.identity > 0:
        if remote.identity is None:
            return None
        both = {entry.identity, remote.identity}
        return len(both) == 1 or both <= WORLD_IDENTITIES
    labels = frozenset(entry.labels)
    if not labels:
        return None
    if remote.identity is not None and remote.identity in RESERVED_IDENTITIES:
        # The parser resolves these; only those of nodes may have labels of the node beside theirs.
        own = f"reserved:{RESERVED_IDENTITIES[remote.identity]}"
        return None if remote.identity not in WORLD_IDENTITIES and own in labels else False
    if remote.labels:
        return labels == remote.labels
    prefixes = [label.removeprefix("cidr:") for label in labels if label.startswith("cidr:")]
    if prefixes and remote.address is not None:
        return None if any(_holds(prefix, remote.address) for prefix in prefixes) else False
    return None


def _holds(prefix: str, address: Address) -> bool:
    try:
        return address in ip_network(prefix.replace("-", ":"), strict=False)
    except ValueError:
        return True  # not understood


def _l4_hit(entry: PolicyEntry, protocol: int, port: int | None) -> bool | None:
    if entry.protocol not in (0, protocol):
        return False
    low, high = entry.ports
    if (low, high) == ANY_PORT:
        return True
    if port is None:
        return None if has_ports(protocol) else False
    return low <= port <= high


def _unresolved(entry: PolicyEntry, by_identity: bool | None) -> str:
    if by_identity:
        return "it depends on the port: give one, as in 1.1.1.1:80"
    if entry.labels:
        return f"the map names an identity by its labels ({', '.join(entry.labels)}), and which " \
            "identity has them could not be resolved"  # fmt: skip
    return (
        f"the map has an entry for identity {entry.identity}, and the remote identity is not known"
    )


def _winner(hits: Sequence[PolicyEntry]) -> PolicyVerdict:
    of_identity = max((e for e in hits if e.identity), key=_prefix_length, default=None)
    of_any = max((e for e in hits if not e.identity), key=_prefix_length, default=None)
    both = [entry for entry in (of_identity, of_any) if entry is not None]
    if not both:
        return PolicyVerdict(False, None, "Policy denied")
    best = max(both, key=_rank)
    if best.deny:
        return PolicyVerdict(False, best, "Policy denied by denylist")
    return PolicyVerdict(True, best)


def _effect(verdict: PolicyVerdict) -> tuple[bool | None, int]:
    return verdict.allowed, verdict.entry.proxy_port if verdict.entry is not None else 0


def _prefix_length(entry: PolicyEntry) -> int:
    """Return how many bits of protocol and port an entry asks for, as its key's prefix does."""
    low, high = entry.ports
    if not entry.protocol:
        return 0
    return 8 + 16 - (high - low).bit_length()


def _rank(entry: PolicyEntry) -> tuple[int, int, int]:
    first = int(entry.deny) if entry.precedence is None else entry.precedence
    return (first, _prefix_length(entry), 1 if entry.identity else 0)


def ports_text(protocol: int, ports: tuple[int, int]) -> str:
    """Return `80/TCP`, `8080-8095/TCP`, `TCP` or `any port`; for ICMP its type."""
    low, high = ports
    if ports == ANY_PORT:
        return protocol_name(protocol) if protocol else "any port"
    numbers = str(low) if low == high else f"{low}-{high}"
    return f"{numbers}/{protocol_name(protocol)}"


def describe(entry: PolicyEntry) -> str:
    """Return an entry in words: `allow egress to identity 2 at 80/TCP`."""
    verb = "deny" if entry.deny else "allow"
    side = "to" if entry.direction == "egress" else "from"
    who = f"identity {entry.identity}" if entry.identity else "any identity"
    if entry.identity < 0:
        who = ", ".join(entry.labels)
    proxy = f", through the L7 proxy at port {entry.proxy_port}" if entry.proxy_port else ""
    return (
        f"{verb} {entry.direction} {side} {who} at {ports_text(entry.protocol, entry.ports)}{proxy}"
    )
