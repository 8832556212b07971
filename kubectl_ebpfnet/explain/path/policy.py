"""The verdict of an endpoint's policy map.

Source: Cilium bpf/lib/policy.h (__policy_can_access) and pkg/maps/policymap. Since 1.19 each
entry carries a precedence and the highest wins; before that a deny wins, then the more specific
L4 match. Nothing found is "Policy denied" (133); a deny entry is "Policy denied by denylist" (181).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kubectl_ebpfnet.model.cilium import PolicyEntry
from kubectl_ebpfnet.model.net import protocol_name

WORLD_IDENTITIES = frozenset({2, 9, 10})
"""world, world-ipv4, world-ipv6: which of them a map uses depends on dual stack."""


@dataclass(frozen=True, slots=True)
class PolicyVerdict:
    """Whether a packet may pass.

    Attributes:
        allowed: None when the map cannot tell (label text that names no identity).
        entry: the entry that decided, None when no entry matched.
        reason: Cilium's drop reason, "" when allowed.
    """

    allowed: bool | None
    entry: PolicyEntry | None
    reason: str = ""


def decide(
    entries: Sequence[PolicyEntry],
    endpoint_id: int,
    direction: str,
    identity: int,
    protocol: int,
    port: int | None,
) -> PolicyVerdict:
    """Look a packet up in an endpoint's policy map.

    Args:
        entries: of any endpoints.
        endpoint_id: whose map is meant.
        direction: `ingress` or `egress`.
        identity: security identity of the remote side.
        protocol: IANA number.
        port: destination port, or ICMP type; None for protocols without ports.

    Returns:
        The verdict; `allowed` is None when only entries with unresolvable labels could match.
    """
    own = [e for e in entries if e.endpoint_id == endpoint_id and e.direction == direction]
    hits = [e for e in own if _identity_hit(e, identity) and _l4_hit(e, protocol, port)]
    if not hits:
        if any(e.identity < 0 and _l4_hit(e, protocol, port) for e in own):
            return PolicyVerdict(None, None)
        return PolicyVerdict(False, None, "Policy denied")
    best = max(hits, key=_rank)
    if best.deny:
        return PolicyVerdict(False, best, "Policy denied by denylist")
    return PolicyVerdict(True, best)


def _identity_hit(entry: PolicyEntry, identity: int) -> bool:
    return entry.identity in (0, identity) or (
        identity in WORLD_IDENTITIES and entry.identity in WORLD_IDENTITIES
    )


def _l4_hit(entry: PolicyEntry, protocol: int, port: int | None) -> bool:
    if entry.protocol not in (0, protocol):
        return False
    low, high = entry.ports
    if (low, high) == (0, 65535):
        return True
    return port is not None and low <= port <= high


def _rank(entry: PolicyEntry) -> tuple[int, int, int, int]:
    first = int(entry.deny) if entry.precedence is None else entry.precedence
    low, high = entry.ports
    width = 0 if entry.protocol == 0 else 65536 - (high - low)
    return (first, 1 if entry.protocol else 0, width, 1 if entry.identity else 0)


def describe(entry: PolicyEntry) -> str:
    """Return an entry in words: `allow egress to identity 2 at 80/TCP`."""
    verb = "deny" if entry.deny else "allow"
    side = "to" if entry.direction == "egress" else "from"
    who = f"identity {entry.identity}" if entry.identity else "any identity"
    low, high = entry.ports
    if (low, high) == (0, 65535):
        what = protocol_name(entry.protocol) if entry.protocol else "any port"
    else:
        ports = str(low) if low == high else f"{low}-{high}"
        what = f"{ports}/{protocol_name(entry.protocol)}"
    proxy = f", through the L7 proxy at port {entry.proxy_port}" if entry.proxy_port else ""
    return f"{verb} {entry.direction} {side} {who} at {what}{proxy}"
