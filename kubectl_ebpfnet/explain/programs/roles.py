"""Whose program it is, and what for, by the names that versions and tools give it.

The same program of Cilium's has many names (cilium-facts 4.1): a section of an object file that tc
loaded (`bpf_lxc.o:[from-container]`, up to 1.12), a function (`cil_from_container` since 1.13;
`handle_xgress`, `from_netdev` before), a function cut at 15 characters by the kernel, a function
with its device behind it (a tc filter: `cil_from_netdev-eth0`), a pin. Programs of 1.9 have no name
in the kernel; then the maps that they share with Cilium's other programs tell.
"""

from __future__ import annotations

_KERNEL_NAME_LENGTH = 15
OBSERVER = "kubectl ebpfnet netkat: takes packets of its own connections, lets all others pass"
"""The role of our own programs (node/netkat/)."""

ROLES = {
    "cil_from_container": "what leaves the pod: LB, conntrack, egress policy, forwarding",
    "cil_to_container": "what enters the pod: ingress policy",
    "cil_lxc_policy": "what enters the pod: ingress policy",
    "cil_from_host": "from the node's stack to pods",
    "cil_to_host": "to the node's stack",
    "cil_from_netdev": "from the network: NodePort, reverse NAT, local delivery",
    "cil_to_netdev": "to the network: masquerading, NodePort replies",
    "cil_from_overlay": "out of the tunnel",
    "cil_to_overlay": "into the tunnel",
    "cil_xdp_entry": "before the stack: prefilter, NodePort",
    "cil_from_wireguard": "decrypted by WireGuard",
    "cil_to_wireguard": "to be encrypted by WireGuard",
    "cil_from_network": "marks IPsec packets",
}
"""Cilium's programs by full name (cilium-facts 4.2); older section names are joined to these."""

OLD_FUNCTIONS = {
    "handle_xgress": "cil_from_container",
    "handle_to_container": "cil_to_container",
    "handle_policy": "cil_lxc_policy",
    "from_netdev": "cil_from_netdev",
    "to_netdev": "cil_to_netdev",
    "from_host": "cil_from_host",
    "to_host": "cil_to_host",
    "from_overlay": "cil_from_overlay",
    "to_overlay": "cil_to_overlay",
    "from_network": "cil_from_network",
    "bpf_xdp_entry": "cil_xdp_entry",
}
"""Functions before 1.13, and their names since (Cilium 1.10 bpf/bpf_{lxc,host,overlay,xdp}.c)."""

SOCKET_ROLES = {
    "_conne": "socket LB: connect()",
    "_sendm": "socket LB: datagrams out",
    "_recvm": "socket LB: datagrams in",
    "_getpe": "socket LB: peer's name",
    "_post_": "socket LB: guards NodePorts",
    "_pre_": "socket LB: health checks",
    "_relea": "socket LB: forgets a socket",
}
"""Roles of Cilium's programs at cgroup hooks, by a part of their names (bpf/bpf_sock.c); the kernel
cuts names at 15 characters."""


_SOCKET_NAMES = ("cil_sock4_", "cil_sock6_", "cil_sock_", "sock4_", "sock6_")


def role_of(name: str) -> str:
    """Return the role of Cilium's program, or of our own, of a name in any of its forms; "" for
    programs of others."""
    for part, role in SOCKET_ROLES.items():
        if name.startswith(_SOCKET_NAMES) and part in name:
            return role
    if name.startswith("netkat"):  # `netkat_gate`, or a filter `netkat:PID:…`
        return OBSERVER
    whole, _, section = name.partition(":[")
    section = section.rstrip("]")
    bare = section if section and not section.startswith("*") else whole
    if bare in OLD_FUNCTIONS:
        return ROLES[OLD_FUNCTIONS[bare]]
    for full, role in ROLES.items():
        old = full.removeprefix("cil_").replace("_", "-")
        if bare == old or bare.partition("-")[0] == full:
            return role
        if len(bare) == _KERNEL_NAME_LENGTH and full.startswith(bare):
            return role
    return ""


def socket_role(hook: str) -> str:
    """Return the role of Cilium's program at a cgroup's hook, "" where Cilium has none."""
    return next((role for part, role in SOCKET_ROLES.items() if part in hook), "")


def is_ciliums(name: str) -> bool:
    """Tell whether a program with this name is Cilium's."""
    return role_of(name) not in ("", OBSERVER)


def best_name(attached: str, loaded: str) -> str:
    """Return the name that tells most.

    Args:
        attached: by the attachment: a filter's name, a section, a pin.
        loaded: by the kernel, "" when it has none or was not asked.
    """
    attached = attached.removesuffix(":[*fsobj]")
    if not attached or not loaded:
        return attached or loaded
    if loaded.startswith("cil_"):  # a pin's name is whole, a filter's has the device behind it
        return attached if attached.startswith(loaded) and "-" not in attached else loaded
    # A section says more than a function of an old Cilium.
    return attached if role_of(attached) or not loaded.startswith(attached) else loaded
