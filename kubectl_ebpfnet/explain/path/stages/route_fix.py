"""What to do where routing refuses a packet: by a rule, by a route, or for want of one."""

from __future__ import annotations

from kubectl_ebpfnet.explain.kernel.decision import Decision
from kubectl_ebpfnet.model.kernel import Route
from kubectl_ebpfnet.model.path import Fix


def delete_what_refuses(decision: Decision, where: str, version: int) -> Fix | None:
    """Return how to delete the rule or the route that refuses a packet, as ip-rule(8) and
    ip-route(8) take it; None where neither does, or where the kernel's own look-up says so alone.

    Args:
        decision: that refuses the packet.
        where: `on node1`, `in the network namespace of pod default/web`.
        version: of the IP.
    """
    if decision.differs or decision.refused.startswith("no route"):
        return None
    ip = "ip -6" if version == 6 else "ip"
    if decision.route is not None:
        which, command = "route", f"{ip} route del {_route(decision.route)}"
    elif decision.rule is not None:
        which, command = "rule", f"{ip} rule del priority {decision.rule.priority}"
    else:
        return None
    return Fix(f"See who set this {which} {where}; where it is a mistake, delete it.", command)


def _route(route: Route) -> str:
    prefix = str(route.destination) if route.destination.prefixlen else "default"
    metric = f" metric {route.metric}" if route.metric else ""
    return f"{route.type} {prefix} table {route.table}{metric}"
