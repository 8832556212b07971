"""Names that pods looked up through the agent's DNS proxy, which toFQDNs rules go by.

An address is allowed by a name only after the pod's own look-up of that name passed the proxy: the
answer is kept for its TTL, and longer while a connection to the address lives. What the pod has
from elsewhere (a longer cache of its own, another server, a fixed address) is not allowed.

Source: Cilium pkg/fqdn (cache.go), pkg/fqdn/matchpattern; since 1.16 an address that a name allows
has an identity with the label `fqdn:NAME`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime

from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.answer import Answer
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.fact import Fact
from kubectl_ebpfnet.model.few import few
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.path import Evidence, Fix
from kubectl_ebpfnet.model.proxy import FqdnEntry

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class NotLookedUp:
    """Why names of toFQDNs do not allow an address.

    Attributes:
        text: one clause.
        fix: what to do.
        evidence: the proof.
        unread: the fact that was not read, None where it was.
    """

    text: str
    fix: Fix
    evidence: tuple[Evidence, ...] = ()
    unread: Fact[FqdnEntry] | None = None


def cache_of(node: NodeView, endpoint_id: int) -> Answer[FqdnEntry]:
    """Return the names of an endpoint: by a question about it alone, or about all."""
    alone = node[q.FQDN_CACHE.about("-e", str(endpoint_id))]
    return alone if alone.known or not node[q.FQDN_CACHE].known else node[q.FQDN_CACHE]


def never_learnt(node: NodeView, endpoint_id: int, names: Sequence[str]) -> NotLookedUp | None:
    """Return that an endpoint's look-ups teach no address, since no rule sends them through the DNS
    proxy; None where its FQDN cache has names all the same.

    Args:
        node: of the endpoint.
        endpoint_id: whose policies have no dns rules.
        names: of its rules for the packet's port.
    """
    table = cache_of(node, endpoint_id)
    if any(entry.endpoint_id == endpoint_id for entry in table.facts):
        return None
    return NotLookedUp(
        f"toFQDNs allows {few(names, _SHOWN)} there, and no egress rule that selects the pod has "
        "dns rules: its look-ups do not pass Cilium's DNS proxy, and teach it no address",
        Fix(
            "Add dns rules (rules: {dns: [{matchPattern: '*'}]}) to a rule that allows the pod's "
            "DNS server at port 53: only what it looks up through Cilium's DNS proxy is allowed by "
            "name.",
        ),
        cite.whole(table.record) if table.known else (),
        None if table.known else q.FQDN_CACHE.about("-e", str(endpoint_id)),
    )


def why_not(
    node: NodeView, endpoint_id: int, names: Sequence[str], address: Address, asked: str
) -> NotLookedUp:
    """Return why names of toFQDNs do not allow an address.

    Args:
        node: of the endpoint.
        endpoint_id: whose policy has the names.
        names: of its rules for the packet's port.
        address: the packet's destination.
        asked: the name that the user asked for, "" for an address.
    """
    allowed = f"toFQDNs allows {few(names, _SHOWN)} there"
    table = cache_of(node, endpoint_id)
    command = node.in_agent(f"fqdn cache list -e {endpoint_id}")
    if not table.known:
        return NotLookedUp(
            f"{allowed}, and by Cilium's tables none of these names is known to have {address}"
            f"{_not_in_ipcache(node, address)} (which names the pod looked up was not read)",
            Fix(
                f"See whether the pod looked up a name that has {address}. If not, it has to, by "
                "the server of the rule that has dns rules: only what passes Cilium's DNS proxy is "
                f"allowed, and for its TTL. If so, the agent on {node.name} does not follow its "
                "own cache; its log tells why.",
                command,
            ),
            unread=q.FQDN_CACHE.about("-e", str(endpoint_id)),
        )
    own = [entry for entry in table.facts if entry.endpoint_id == endpoint_id]
    having = [entry for entry in own if address in entry.addresses]
    proof = cite.of(table.record, *(entry.span for entry in (having or own)[:_SHOWN]))
    proof = proof or cite.whole(table.record)
    at = _moment(table)
    fitting = [entry for entry in having if fits_any(entry.name, names)]
    again = Fix(
        "Let the pod look the name up again, by the server of the rule that has dns rules: only "
        "what passes Cilium's DNS proxy is allowed, and for its TTL.",
        command,
    )
    if fitting:
        until = fitting[0].expires
        expired = at is not None and until is not None and until < at
        return NotLookedUp(
            f"{allowed}, and the FQDN cache has {address} by {_entry(fitting[0], at)}, which its "
            f"tables do not follow{_not_in_ipcache(node, address)}",
            again
            if expired
            else Fix(
                f"The rules are right: see why the agent on {node.name} does not follow its own "
                "cache, by its log. A look-up of the pod, and a restart of the agent, write it "
                "anew.",
                command,
            ),
            proof,
        )  # fmt: skip
    if having:
        return NotLookedUp(
            f"{allowed}; {address} is {_entry(having[0], at)}, which none of them is",
            Fix(f"Name {having[0].name.rstrip('.')} in toFQDNs, if it is meant.", command), proof,
        )  # fmt: skip
    if table.gaps:
        return NotLookedUp(
            f"{allowed}, and by what was read of the FQDN cache none of these names is known to "
            f"have {address} ({table.gaps})",
            Fix(f"List the FQDN cache by the agent on {node.name}.", command), proof,
        )  # fmt: skip
    if asked and fits_any(asked, names):
        allowed += f"; {asked} is one, and it is not in the FQDN cache with {address}"
    else:
        allowed += f", and no name in the FQDN cache has {address}"
    has = few(own, _SHOWN, lambda entry: _entry(entry, at))
    return NotLookedUp(f"{allowed}: it has {has or 'no name of this pod'}", again, proof)


def _not_in_ipcache(node: NodeView, address: Address) -> str:
    """Return that the ipcache gives an address no identity of its own, "" where it does, or was not
    read."""
    entry = node.ipcache_of(address)
    if not node[q.IPCACHE].known or (entry is not None and entry.prefix.num_addresses == 1):
        return ""
    return f": the ipcache of {node.name} has no entry of {address}, so it is world"


def allowed_by(node: NodeView, endpoint_id: int, address: Address) -> str:
    """Return by which looked-up names an address is known, in words; "" where none is read."""
    table = cache_of(node, endpoint_id)
    at = _moment(table)
    having = [e for e in table.facts if e.endpoint_id == endpoint_id and address in e.addresses]
    return few(having, _SHOWN, lambda entry: _entry(entry, at))


def fits_any(name: str, patterns: Iterable[str]) -> bool:
    """Tell whether a name is one of matchName and matchPattern, in which `*` is part of one label;
    stars alone are every name, and two or more before the first dot are labels of any number."""
    wanted = name.rstrip(".").lower()
    return any(_pattern(each).fullmatch(wanted) for each in patterns)


def _pattern(text: str) -> re.Pattern[str]:
    plain = text.rstrip(".").lower()
    if plain and not plain.strip("*"):
        return re.compile(".*")
    some = "[-a-z0-9_]*"
    stars, dot, below = plain.partition(".")
    deep = dot and len(stars) > 1 and not stars.strip("*")  # names of every depth below it
    whole, rest = (rf"({some}[.])*{some}[.]", below) if deep else ("", plain)
    first, *parts = map(re.escape, rest.split("*"))
    # What stands between two stars is taken where it comes first, for good: a stranger's pattern
    # with many stars must not be tried at every place of a name.
    between = "".join(f"(?>{some}?{part})" for part in parts[:-1])
    return re.compile(whole + first + between + (some + parts[-1] if parts else ""))


def _entry(entry: FqdnEntry, at: datetime | None) -> str:
    """Return `ok.example.test → 1.1.1.1 (looked up 14 s before, expires in 46 s)`."""
    has = few(entry.addresses, _SHOWN)
    ages = []
    if at is not None and entry.looked_up is not None:
        ages.append(f"looked up {max(0, round((at - entry.looked_up).total_seconds()))} s before")
    if at is not None and entry.expires is not None:
        left = round((entry.expires - at).total_seconds())
        ages.append(f"expires in {left} s" if left >= 0 else f"expired {-left} s before")
    said = f" ({', '.join(ages)})" if ages else ""
    return f"{entry.name.rstrip('.')} → {has or 'nothing'}{said}"


def _moment(table: Answer[FqdnEntry]) -> datetime | None:
    """Return when the cache was read, by this machine's clock."""
    try:
        read = datetime.fromisoformat(table.record.started) if table.record is not None else None
    except ValueError:
        return None
    return read if read is None or read.tzinfo is not None else None


def learned(node: NodeView, name: str) -> tuple[tuple[Address, ...], str, tuple[Evidence, ...]]:
    """Return the addresses by which a node's agent knows a name, how, and the proof.

    Args:
        node: of the pod.
        name: complete, in any case.
    """
    wanted = name.rstrip(".").lower()
    table = node[q.FQDN_CACHE]
    found = [entry for entry in table.facts if entry.name.rstrip(".") == wanted]
    if found:
        newest = max(found, key=lambda entry: entry.looked_up.timestamp() if entry.looked_up else 0)
        return newest.addresses, "its FQDN cache", cite.of(table.record, newest.span)
    labelled = {
        identity.id: identity
        for identity in node[q.IDENTITIES].facts
        if f"fqdn:{wanted}" in identity.labels
    }
    if not labelled:
        return (), "", ()
    entries = [e for e in node[q.IPCACHE].facts if e.identity in labelled]
    entries = [e for e in entries if e.prefix.num_addresses == 1]
    proof = cite.of(node[q.IPCACHE].record, *(e.span for e in entries[:_SHOWN]))
    return tuple(e.prefix.network_address for e in entries), "its identities", proof
