"""The wire, the nodes' own network, and the world outside.

A bridge in the machine's own namespace is the wire. Each node is a namespace with eth0 on it. The
world is one more namespace with 1.1.1.1. Inside a node everything looks as Cilium's native routing
with netfilter masquerading does (tests/scenarios/native-iptables), except one thing: endpoint
routes, one host route a pod.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.lab.cluster.config import (
    BRIDGE,
    BRIDGE_ADDRESS,
    HERE,
    NODES,
    POD_CIDR,
    STATE,
    WORLD_ADDRESS,
    WORLD_NETNS,
    WORLD_NODE_ADDRESS,
    Node,
)
from tests.lab.cluster.processes import run, start

NETNS = Path("/run/netns")
NETNS_IS_OURS = STATE / "netns-is-ours"
"""There when the first `ip netns add` of this machine, which mounts NETNS, was the lab's."""
CILIUM_RULES = (HERE / "nodes/cilium.rules").read_text()


def inside(netns: str, *argv: str) -> str:
    """Run a command in a namespace of ours; its stdout."""
    return run(["ip", "netns", "exec", netns, *argv]).stdout


def up() -> None:
    """Make the bridge, the nodes' namespaces and the world."""
    if not _is_mounted():
        NETNS_IS_OURS.write_text("mount" if NETNS.exists() else "folder")
    run(["ip", "link", "add", BRIDGE, "type", "bridge"])
    run(["ip", "addr", "add", f"{BRIDGE_ADDRESS}/24", "dev", BRIDGE])
    run(["ip", "link", "set", BRIDGE, "up"])
    for node in NODES:
        _plug_in(node.netns, f"ebl-n{node.number}", node.address)
        _node(node)
    _plug_in(WORLD_NETNS, "ebl-w", WORLD_NODE_ADDRESS)
    inside(WORLD_NETNS, "ip", "addr", "add", f"{WORLD_ADDRESS}/32", "dev", "lo")
    # Whatever else is asked of the world is refused at once, so that nobody waits for it.
    inside(WORLD_NETNS, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
    start("world", ["ip", "netns", "exec", WORLD_NETNS, "python3", str(HERE / "nodes/world.py")])


def _is_mounted() -> bool:
    """Whether NETNS is a mount; Path.is_mount() does not see one of a folder on itself."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return any(line.split()[4] == str(NETNS) for line in mounts)


def _plug_in(netns: str, outside: str, address: str) -> None:
    run(["ip", "netns", "add", netns])
    run(["ip", "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", netns])
    run(["ip", "link", "set", outside, "master", BRIDGE, "up"])
    inside(netns, "ip", "link", "set", "lo", "up")
    inside(netns, "ip", "addr", "add", f"{address}/24", "dev", "eth0")
    inside(netns, "ip", "link", "set", "eth0", "up")


def _node(node: Node) -> None:
    def ip(*words: str) -> None:
        inside(node.netns, "ip", *words)

    ip("link", "add", "cilium_host", "type", "veth", "peer", "name", "cilium_net")
    for device in ("cilium_host", "cilium_net"):
        ip("link", "set", device, "arp", "off", "up")
    ip("addr", "add", f"{node.router}/32", "dev", "cilium_host")
    ip("route", "add", node.router, "dev", "cilium_host", "scope", "link", "proto", "kernel")
    ip("route", "add", node.pod_cidr, "via", node.router, "dev", "cilium_host",
       "proto", "kernel", "src", node.router)  # fmt: skip
    ip("route", "add", "default", "via", WORLD_NODE_ADDRESS, "dev", "eth0")
    for other in NODES:
        if other is not node:
            ip("route", "add", other.pod_cidr, "via", other.address, "dev", "eth0",
               "proto", "kernel")  # fmt: skip
    # A load-balancer's address lies on eth0's subnet. A node that sends ICMP redirects for it sends
    # no other ICMP: both share a limit a peer (net/ipv4/route.c, ip_rt_send_redirect), and what
    # kube-proxy rejects would meet silence.
    for key in ("net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0",
                "net.ipv4.conf.default.rp_filter=0", "net.ipv4.conf.eth0.rp_filter=0",
                "net.ipv4.conf.all.send_redirects=0",
                "net.ipv4.conf.eth0.send_redirects=0"):  # fmt: skip
        inside(node.netns, "sysctl", "-q", "-w", key)
    inside(node.netns, "ipset", "create", "cilium_node_set_v4", "hash:ip", "family", "inet")
    for other in NODES:
        inside(node.netns, "ipset", "add", "cilium_node_set_v4", other.address)
    rules = CILIUM_RULES.format(pod_cidr=node.pod_cidr, cluster_cidr=POD_CIDR)
    run(["ip", "netns", "exec", node.netns, "iptables-restore", "--noflush"], input=rules)


def down() -> None:
    """Take everything of ours away; nothing that is not there is an error."""
    for netns in (*(node.netns for node in NODES), WORLD_NETNS):
        subprocess.run(["ip", "netns", "del", netns], capture_output=True, check=False)
    for link in (*(f"ebl-n{node.number}" for node in NODES), "ebl-w", BRIDGE):
        subprocess.run(["ip", "link", "del", link], capture_output=True, check=False)
    if NETNS_IS_OURS.exists() and _is_mounted() and not list(NETNS.iterdir()):
        subprocess.run(["umount", str(NETNS)], capture_output=True, check=False)
        if NETNS_IS_OURS.read_text() == "folder":
            NETNS.rmdir()


def left() -> list[str]:
    """Names of ours that are still there."""
    links = [p.name for p in Path("/sys/class/net").iterdir() if p.name.startswith("ebl")]
    spaces = (
        [p.name for p in Path("/run/netns").glob("ebl-*")] if Path("/run/netns").exists() else []
    )
    return links + spaces
