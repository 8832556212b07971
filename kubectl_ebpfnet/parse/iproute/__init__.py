"""What iproute2's `ip` prints: links, addresses, routes, rules and neighbours.

Every function takes the JSON form (`ip -j …`) and the text form and gives equal facts for both,
except for what only one of them says: only `-d` says a link's kind, and for a link whose other
end is in a named namespace, text says the name (`link-netns`) and JSON the number
(`link_netnsid`).

Sources: iproute2's ip/ipaddress.c, iproute.c, iprule.c and ipneigh.c; ip-link(8),
ip-address(8), ip-route(8), ip-rule(8), ip-neighbour(8). Verified with iproute2 6.1, and with
BusyBox 1.35, whose `ip` prints a shorter text form: no next hops of a multipath route, no goto,
`not` or oif of a rule.
"""

from __future__ import annotations

from kubectl_ebpfnet.parse.iproute.link import addresses, links
from kubectl_ebpfnet.parse.iproute.neighbour import neighbours
from kubectl_ebpfnet.parse.iproute.route import routes
from kubectl_ebpfnet.parse.iproute.rule import rules

__all__ = ["addresses", "links", "neighbours", "routes", "rules"]
