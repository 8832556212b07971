"""Cilium's maps and programs, as far as the lab has them: made in a node's own bpffs.

Everything here runs inside a node's namespaces: node-init.sh calls `prepare` there, the CNI plugin
`attach`. Names, sizes and layouts: cilium-facts 1.5, 3 and 4.1.
"""

from __future__ import annotations

import os
import shutil
import struct
import sys
from ipaddress import IPv4Address, ip_network
from pathlib import Path

from tests.lab.cluster.config import BRIDGE_ADDRESS, NODES, STATE, Node
from tests.lab.cluster.datapath import syscall_bpf as sys_bpf
from tests.lab.cluster.datapath import tc_filter
from tests.lab.cluster.datapath.syscall_bpf import (
    HASH,
    LPM_TRIE,
    LRU_HASH,
    NO_PREALLOC,
    PERCPU_HASH,
    Map,
)
from tests.lab.cluster.processes import run

FS = Path("/sys/fs/bpf")
SOURCES = Path(__file__).parent / "progs"
GLOBALS = FS / "tc/globals"
PROGRAMS = FS / "ebl"

CT = (14, 56)
ENDPOINT = (20, 48)
IPCACHE = (24, 24)
POLICY = (12, 12)
METRICS = (8, 16)
POLICY_ENTRIES = 256
"""Room of a policy map."""

WORLD, HOST, REMOTE_NODE = 2, 1, 6
_HAS_TUNNEL = 2  # bpf/lib/eps.h, flag_has_tunnel_ep

MAPS = {
    "cilium_ct4_global": (LRU_HASH, *CT, 4096, 0),
    "cilium_ct_any4_global": (LRU_HASH, *CT, 4096, 0),
    "cilium_lxc": (HASH, *ENDPOINT, 256, 0),
    "cilium_ipcache_v2": (LPM_TRIE, *IPCACHE, 1024, NO_PREALLOC),
    "cilium_metrics": (PERCPU_HASH, *METRICS, 64, 0),
    "cilium_lb4_services_v2": (HASH, 12, 12, 256, 0),
    "cilium_lb4_backends_v3": (HASH, 4, 12, 256, 0),
    "cilium_lb4_reverse_nat": (HASH, 2, 6, 256, 0),
}
_NAMES_IN_C = {
    "cilium_ct_any4": "cilium_ct_any4_global",
    "cilium_ipcache": "cilium_ipcache_v2",
    "cilium_lb4_serv": "cilium_lb4_services_v2",
    "cilium_lb4_back": "cilium_lb4_backends_v3",
    "cilium_lb4_rev": "cilium_lb4_reverse_nat",
}


def compile_programs() -> None:
    """Compile the C sources once a lab."""
    out = STATE / "bpf"
    out.mkdir(parents=True, exist_ok=True)
    for source in ("lxc", "host"):
        run(["clang", "-O2", "-g", "-target", "bpf", "-I/usr/include/x86_64-linux-gnu",
             "-I/usr/include/aarch64-linux-gnu", "-Wall", "-Werror",
             "-c", str(SOURCES / f"{source}.c"), "-o", str(out / f"{source}.o")])  # fmt: skip


def policy_map(endpoint_id: int) -> Path:
    """Where an endpoint's policy map is pinned."""
    return GLOBALS / f"cilium_policy_v2_{endpoint_id:05d}"


def policy_key(identity: int, egress: bool, protocol: int, port: int) -> bytes:
    """prefixlen, identity, direction, protocol, port: 40 static bits, then what is given."""
    bits = 40 + (8 if protocol else 0) + (16 if port else 0)
    return struct.pack("=IIBB", bits, identity, int(egress), protocol) + port.to_bytes(2, "big")


ALLOW = struct.pack("=HBBII", 0, 0, 0, 0xFFFFFF00, 0)


def ipcache_key(prefix: str) -> bytes:
    """Prefix length over 32 static bits, cluster 0, family 1, address."""
    network = ip_network(prefix)
    return struct.pack("=IHBB", 32 + network.prefixlen, 0, 0, 1) + (
        network.network_address.packed.ljust(16, b"\0")
    )


def ipcache_value(identity: int, node: str = "") -> bytes:
    """An identity, and of another node's pod that node's address, as native routing has it too."""
    endpoint, flags = (IPv4Address(node).packed, _HAS_TUNNEL) if node else (b"", 0)
    return struct.pack("=I16sHBB", identity, endpoint, 0, 0, flags)


def prepare(node: Node) -> None:
    """Make the maps and attach the programs of the node's own devices."""
    GLOBALS.mkdir(parents=True, exist_ok=True)
    for name, (kind, key, value, entries, flags) in MAPS.items():
        sys_bpf.create_map(GLOBALS / name, kind, key, value, entries, flags)
    with Map(GLOBALS / "cilium_ipcache_v2", *IPCACHE) as ipcache:
        ipcache.put(ipcache_key("0.0.0.0/0"), ipcache_value(WORLD))
        ipcache.put(ipcache_key(f"{BRIDGE_ADDRESS}/32"), ipcache_value(16777217))
        for other in NODES:
            own = other == node
            for address in (other.address, other.router):
                identity = HOST if own else REMOTE_NODE
                ipcache.put(ipcache_key(f"{address}/32"), ipcache_value(identity))
    with Map(GLOBALS / "cilium_lxc", *ENDPOINT) as endpoints:
        for address in (node.address, node.router):
            endpoints.put(endpoint_key(address), struct.pack("=IHHI36x", 0, 0, 0, 1))
    load("host", PROGRAMS / "host", {})
    for program, device, direction in (
        ("cil_from_netdev", "eth0", "ingress"),
        ("cil_to_netdev", "eth0", "egress"),
        ("cil_from_host", "cilium_host", "egress"),
        ("cil_to_host", "cilium_host", "ingress"),
    ):
        pin = FS / f"cilium/devices/{device}/links/{program}"
        attach(node, PROGRAMS / "host" / program, device, direction, pin)
    _forget(PROGRAMS / "host")


def _forget(folder: Path) -> None:
    """Unpin loaded programs: their filter or link keeps them, and Cilium pins none either."""
    shutil.rmtree(folder)


def endpoint_key(address: str) -> bytes:
    """A key of cilium_lxc."""
    return IPv4Address(address).packed.ljust(16, b"\0") + struct.pack("=BBH", 1, 0, 0)


def load(source: str, folder: Path, maps: dict[str, Path]) -> None:
    """Load an object's programs with our pinned maps and pin them in a folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    argv = ["bpftool", "prog", "loadall", str(STATE / f"bpf/{source}.o"), str(folder),
            "type", "classifier"]  # fmt: skip
    wanted = {"host": ("cilium_metrics",)}.get(
        source,
        ("cilium_ct4_global", "cilium_lxc", "cilium_metrics", *_NAMES_IN_C),
    )
    for name in wanted:
        argv += ["map", "name", name, "pinned", str(GLOBALS / _NAMES_IN_C.get(name, name))]
    for name, path in maps.items():
        argv += ["map", "name", name, "pinned", str(path)]
    run(argv)


def attach(node: Node, program: Path, device: str, direction: str, pin: Path) -> None:
    """Attach a pinned program as this node does it: a clsact filter, or a tcx link."""
    index = int(Path(f"/sys/class/net/{device}/ifindex").read_text())
    if node.attach == "tcx":
        where = sys_bpf.TCX_INGRESS if direction == "ingress" else sys_bpf.TCX_EGRESS
        sys_bpf.link_tcx(program, index, where, pin)
        return
    if "clsact" not in run(["tc", "qdisc", "show", "dev", device]).stdout:
        run(["tc", "qdisc", "add", "dev", device, "clsact"])
    fd = sys_bpf.pinned(program)
    try:
        tc_filter.add(index, direction, fd, f"{program.name}-{device}")
    finally:
        os.close(fd)


def attach_endpoint(
    node: Node, endpoint_id: int, identity: int, address: str, device: str, ifindex: int,
    mac: str, host_mac: str,
) -> None:  # fmt: skip
    """Give a new pod its endpoint row, an allow-all policy map and its programs."""
    sys_bpf.create_map(policy_map(endpoint_id), LPM_TRIE, *POLICY, POLICY_ENTRIES, NO_PREALLOC)
    with Map(policy_map(endpoint_id), *POLICY) as policy:
        for egress in (False, True):
            policy.put(policy_key(0, egress, 0, 0), ALLOW)
        policy.put(policy_key(HOST, False, 0, 0), ALLOW)
    with Map(GLOBALS / "cilium_lxc", *ENDPOINT) as endpoints:
        endpoints.put(
            endpoint_key(address),
            struct.pack("=IHHI4x8s8sI12x", ifindex, 0, endpoint_id, 0, _mac(mac), _mac(host_mac),
                        identity),
        )  # fmt: skip
    with Map(GLOBALS / "cilium_ipcache_v2", *IPCACHE) as ipcache:
        ipcache.put(ipcache_key(f"{address}/32"), ipcache_value(identity))
    folder = PROGRAMS / f"ep{endpoint_id}"
    load("lxc", folder, {"cilium_policy": policy_map(endpoint_id)})
    for program, direction in (("cil_from_container", "ingress"), ("cil_to_container", "egress")):
        pin = FS / f"cilium/endpoints/{endpoint_id}/links/{program}"
        attach(node, folder / program, device, direction, pin)
    _forget(folder)


def detach_endpoint(endpoint_id: int, address: str) -> None:
    """Take a pod's rows, maps and pins away; nothing that is gone is an error."""
    with Map(GLOBALS / "cilium_lxc", *ENDPOINT) as endpoints:
        endpoints.remove(endpoint_key(address))
    with Map(GLOBALS / "cilium_ipcache_v2", *IPCACHE) as ipcache:
        ipcache.remove(ipcache_key(f"{address}/32"))
    policy_map(endpoint_id).unlink(missing_ok=True)
    for folder in (PROGRAMS / f"ep{endpoint_id}", FS / f"cilium/endpoints/{endpoint_id}"):
        shutil.rmtree(folder, ignore_errors=True)  # the first is there after a failed ADD only


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


if __name__ == "__main__":
    prepare(next(node for node in NODES if node.name == sys.argv[1]))
