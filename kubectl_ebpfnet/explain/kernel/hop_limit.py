"""Rules that change how many routers a packet may pass yet: its TTL, IPv6's hop limit.

Each node and router that forwards a packet counts it down, and drops it at 0 (Linux
net/ipv4/ip_forward.c, net/ipv6/ip6_output.c). Sources: iptables-extensions(8), TTL and HL; nft(8).
"""

from __future__ import annotations

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model import json_members as members
from kubectl_ebpfnet.model.netfilter import NetfilterRule
from kubectl_ebpfnet.model.nft import Expression
from kubectl_ebpfnet.model.untrusted import integer

_ENOUGH = 32
"""A limit that ends nowhere in a cluster, nor on the way out of it. Hosts begin with 64."""
_OPTIONS = {"TTL": "--ttl-", "HL": "--hl-"}
HOP_LIMITS = frozenset(_OPTIONS)
"""Targets of iptables that change it."""
IN_DOUBT = "whether the packet arrives with the hop limit that it gives it is not known"


def suffices_after_target(rule: NetfilterRule) -> bool:
    """Tell whether a packet surely arrives after a rule whose target is one of HOP_LIMITS."""
    begin = _OPTIONS[rule.jump]
    if rule.option(f"{begin}inc"):
        return True
    try:
        given = rule.option(f"{begin}set")
        if given:
            return integer(given, "netfilter") >= _ENOUGH
        return integer(rule.option(f"{begin}dec"), "netfilter") <= _ENOUGH
    except ParseError:
        return False


def suffices_after_statement(statement: Expression) -> bool:
    """Tell whether a packet surely arrives after a statement of nftables, for its hop limit."""
    if members.text(statement, "mangle", "key", "payload", "field") not in ("ttl", "hoplimit"):
        return True
    given = members.number(statement, "mangle", "value")
    return given is not None and given >= _ENOUGH
