"""Output of iproute2's `ip`: links, addresses, routes, rules, neighbours and IPsec states.

Every function parses the JSON form (`ip -j …`) and the text form into equal facts, except for facts
that only one form has: only `-d` prints a link's kind, and for a link whose peer is in a named
namespace, text has the name (`link-netns`) and JSON the number (`link_netnsid`).

Sources: iproute2's ip/ipaddress.c, iproute.c, iprule.c and ipneigh.c; ip-link(8),
ip-address(8), ip-route(8), ip-rule(8), ip-neighbour(8). Verified with iproute2 6.1, and with
BusyBox 1.35, whose `ip` prints a shorter text form: no next hops of a multipath route, no goto,
`not` or oif of a rule.
"""

from __future__ import annotations

from kubectl_ebpfnet.parse.iproute.link import addresses, links
from kubectl_ebpfnet.parse.iproute.neighbour import neighbours
from kubectl_ebpfnet.parse.iproute.route import routes, routes6
from kubectl_ebpfnet.parse.iproute.rule import rules, rules6
from kubectl_ebpfnet.parse.iproute.statistics import device_counters, qdiscs
from kubectl_ebpfnet.parse.iproute.xfrm import xfrm_policies, xfrm_states

__all__ = [
    "addresses",
    "device_counters",
    "links",
    "neighbours",
    "qdiscs",
    "routes",
    "routes6",
    "rules",
    "rules6",
    "xfrm_policies",
    "xfrm_states",
]
