"""Egress policy of one endpoint, written into its policy map as Cilium's agent would.

`python -m tests.lab policy NAMESPACE/POD --allow-egress 80/TCP [--to IDENTITY]` leaves only what is
allowed, `--clear` opens it again. What is not allowed is dropped by the endpoint's program (reason
133) from the next packet on, flows that exist included. Map layout: cilium-facts 3.8.
"""

from __future__ import annotations

import errno
import json
import struct
from dataclasses import dataclass
from pathlib import Path

from tests.lab.cluster.config import NODES, STATE
from tests.lab.cluster.datapath import bpf
from tests.lab.cluster.datapath.syscall_bpf import Map
from tests.lab.cluster.processes import alive

_NOBODY = 60000
"""The first of many identities without a pod."""
_PROTOCOLS = {"ICMP": 1, "TCP": 6, "UDP": 17}


@dataclass(frozen=True, slots=True)
class Allowed:
    """What may leave.

    Attributes:
        protocol: `TCP`, `UDP` or `ICMP`; "" for all.
        port: destination port, 0 for all (for ICMP: the type).
        identity: who may be reached; 0 for everybody.
    """

    protocol: str = ""
    port: int = 0
    identity: int = 0

    @staticmethod
    def parse(text: str, identity: int = 0) -> Allowed:
        """Read `80/TCP`, `53/UDP`, `ICMP`. Raises ValueError."""
        port, slash, protocol = text.rpartition("/")
        protocol = protocol.upper()
        if protocol not in _PROTOCOLS or (slash and not 0 < int(port) < 65536):
            raise ValueError(f"not PORT/TCP, PORT/UDP, TCP, UDP or ICMP: {text!r}")
        return Allowed(protocol, int(port) if slash else 0, identity)


def allow_egress(namespace: str, pod: str, *allowed: Allowed) -> None:
    """Let a pod reach only this. Raises LookupError when the pod has no endpoint."""
    with _policy_map(namespace, pod) as policy:
        wanted = {
            bpf.policy_key(one.identity, True, _PROTOCOLS.get(one.protocol, 0), one.port)
            for one in allowed
        }
        for key in wanted:
            policy.put(key, bpf.ALLOW)
        for key in [key for key, _ in policy.items() if _is_egress(key) and key not in wanted]:
            policy.remove(key)


def clear(namespace: str, pod: str) -> None:
    """Let a pod reach everything again. Raises LookupError when the pod has no endpoint."""
    everything = bpf.policy_key(0, True, 0, 0)
    with _policy_map(namespace, pod) as policy:
        policy.put(everything, bpf.ALLOW)
        for key in [key for key, _ in policy.items() if _is_egress(key) and key != everything]:
            policy.remove(key)


def fill(namespace: str, pod: str) -> None:
    """Leave a pod's policy map no room: entries of identities that nobody has, which allow what
    comes in. Raises LookupError when the pod has no endpoint."""
    with _policy_map(namespace, pod) as policy:
        for number in range(bpf.POLICY_ENTRIES):
            try:
                policy.put(bpf.policy_key(_NOBODY + number, False, 0, 0), bpf.ALLOW)
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    return
                raise


def endpoint(namespace: str, pod: str) -> dict[str, object]:
    """The endpoint record that the CNI plugin wrote. Raises LookupError."""
    for path in (STATE / "endpoints").glob("*.json"):
        record: dict[str, object] = json.loads(path.read_text())
        if (record["namespace"], record["pod"]) == (namespace, pod):
            return record
    raise LookupError(f"{namespace}/{pod} has no endpoint")


def bpffs(node_name: str) -> Path:
    """A node's own bpffs as a path of this mount namespace. Raises LookupError."""
    pid = alive(node_name)
    # `unshare --fork` waits; its child is the node's first process, in the mount namespace.
    inside = Path(f"/proc/{pid}/task/{pid}/children").read_text().split() if pid else []
    if not inside:
        raise LookupError(f"{node_name} does not run")
    return Path(f"/proc/{inside[0]}/root{bpf.FS}")


def _policy_map(namespace: str, pod: str) -> Map:
    record = endpoint(namespace, pod)
    number = int(str(record["id"]))
    node = next(node for node in NODES if node.name == record["node"])
    pin = bpffs(node.name) / bpf.policy_map(number).relative_to(bpf.FS)
    return Map(pin, *bpf.POLICY)


def _is_egress(key: bytes) -> bool:
    return bool(struct.unpack_from("=IIB", key)[2] & 1)
