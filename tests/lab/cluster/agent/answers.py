"""What the replay agent answers to `cilium-dbg`. It is not Cilium, and says so.

What Cilium keeps in maps (conntrack, policy, endpoints, ipcache, load-balancing, metrics) is read
from the node's real maps at that moment. What only Cilium's own control plane knows (status,
endpoint models, services, identities) is a form recorded from Cilium 1.20-dev, filled with the
lab's own values (STATE/forms.json, STATE/view.json).
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from tests.lab.cluster.agent.text import PROTOCOLS, ct_line, table
from tests.lab.cluster.config import NODES, STATE, VERSION, Node
from tests.lab.cluster.datapath import bpf
from tests.lab.cluster.datapath.syscall_bpf import Map

FORMS = STATE / "forms.json"
VIEW = STATE / "view.json"
NAME = "replay (kubectl-ebpfnet lab)"
HOST_ENDPOINT = 615
"""Id of the node's own endpoint, as in the recorded form."""
Words = tuple[str, ...]
_REASONS = {0: "Success", 133: "Policy denied", 158: "Service backend not found"}
_SERVICE_FLAGS = ((2, "NodePort"), (32, "LoadBalancer"))


class Failed(Exception):
    """The command fails with these words on stderr."""


class Agent:
    """The answers of one node's agent."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.forms: dict[str, Any] = json.loads(FORMS.read_text())
        self.commands: dict[Words, Callable[[Words], str]] = {
            ("version",): self.version,
            ("status",): self.status,
            ("endpoint", "list"): self.endpoint_list,
            ("endpoint", "get"): self.endpoint_get,
            ("bpf", "ct", "list"): self.ct_list,
            ("bpf", "lb", "list"): self.lb_list,
            ("bpf", "ipcache", "list"): self.ipcache_list,
            ("bpf", "policy", "get"): self.policy_get,
            ("bpf", "endpoint", "list"): self.endpoint_map,
            ("bpf", "metrics", "list"): self.metrics,
            ("service", "list"): self.service_list,
            ("node", "list"): self.node_list,
            ("identity", "list"): self.identity_list,
            ("identity", "get"): self.identity_get,
        }

    def answer(self, words: Words) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of a command."""
        recorded = self.forms["verbatim"].get(" ".join(words))
        if recorded is not None:
            return recorded["exit_code"], recorded["stdout"], recorded["stderr"]
        for length in (3, 2, 1):
            command = self.commands.get(words[:length])
            if command is None:
                continue
            try:
                return 0, command(words[length:]), ""
            except Failed as failed:
                return 1, "", f"{failed}\n"
        first = words[0] if words else ""
        hint = "Run 'cilium-dbg --help' for usage.\n"
        return 1, "", f'Error: unknown command "{first}" for "cilium-dbg"\n{hint}'

    def view(self) -> dict[str, Any]:
        """What the lab's control plane knows: endpoints, identities, services."""
        try:
            found: dict[str, Any] = json.loads(VIEW.read_text())
        except OSError:
            return {"endpoints": [], "identities": {}, "services": []}
        return found

    def own(self) -> list[dict[str, Any]]:
        """This node's endpoints."""
        return [e for e in self.view()["endpoints"] if e["node"] == self.node.name]

    def version(self, _: Words) -> str:
        said = f"1.20.0-dev {NAME} linux/{os.uname().machine}"
        return f"Client: {said}\nDaemon: {said}\n"

    def status(self, words: Words) -> str:
        _only_json("status", words)
        form: dict[str, Any] = json.loads(self.forms["status"])
        form["attach-mode"] = self.node.attach
        form["cilium"]["msg"] = NAME
        form["cluster"]["self"] = self.node.name
        form["controllers"] = []
        sizes = {name: row[3] for name, row in bpf.MAPS.items()}
        form["bpf-maps"]["maps"] = [
            {"name": "TCP connection tracking", "size": sizes["cilium_ct4_global"]},
            {"name": "Non-TCP connection tracking", "size": sizes["cilium_ct_any4_global"]},
            {"name": "Endpoints", "size": sizes["cilium_lxc"]},
            {"name": "IP cache", "size": sizes["cilium_ipcache_v2"]},
            {"name": "IPv4 service", "size": sizes["cilium_lb4_services_v2"]},
            {"name": "IPv4 service backend", "size": sizes["cilium_lb4_backends_v3"]},
            {"name": "IPv4 service reverse NAT", "size": sizes["cilium_lb4_reverse_nat"]},
            {"name": "Endpoint policy", "size": bpf.POLICY_ENTRIES},
        ]
        allocated = {e["address"]: f"{e['namespace']}/{e['pod']}" for e in self.own()}
        allocated[self.node.router] = "router"
        form["ipam"].update(
            allocations=allocated,
            ipv4=sorted(allocated),
            status=f"IPv4: {len(allocated)}/254 allocated from {self.node.pod_cidr}, ",
        )
        form["kube-proxy-replacement"]["deviceList"] = [{"ip": [self.node.address], "name": "eth0"}]
        form["kubernetes"]["msg"] = f"1.20 (v{VERSION}) [linux/amd64]"
        form["proxy"]["ip"] = self.node.router
        return _json(form)

    def endpoint_list(self, words: Words) -> str:
        _only_json("endpoint list", words)
        return _json([self._host_endpoint(), *map(self._endpoint, self.own())])

    def endpoint_get(self, words: Words) -> str:
        wanted = words[0] if words else ""
        for one in self.own():
            names = (
                str(one["id"]),
                f"cilium-local:{one['id']}",
                f"ipv4:{one['address']}",
                f"pod-name:{one['namespace']}:{one['pod']}",
                f"cep-name:{one['namespace']}/{one['pod']}",
                f"container-id:{one['container']}",
            )
            if wanted in names:
                return _json([self._endpoint(one)])
        raise Failed(
            f"Error: Cannot get endpoint {wanted}: "
            "[GET /endpoint/{id}][404] getEndpointIdNotFound"
        )

    def _host_endpoint(self) -> dict[str, Any]:
        form: dict[str, Any] = json.loads(self.forms["host endpoint"])
        link = Path("/sys/class/net/cilium_host")
        mac = (link / "address").read_text().strip()
        status = form["status"]
        status["controllers"], status["log"] = [], []
        status["networking"].update(
            {
                "host-mac": mac,
                "mac": mac,
                "interface-index": int((link / "ifindex").read_text()),
            }
        )
        return form

    def _endpoint(self, one: dict[str, Any]) -> dict[str, Any]:
        form: dict[str, Any] = json.loads(self.forms["pod endpoint"])
        status = form["status"]
        form["id"] = one["id"]
        status["controllers"], status["log"] = [], []
        status["external-identifiers"] = {
            "cni-attachment-id": f"{one['container']}:eth0",
            "container-id": one["container"],
            "k8s-namespace": one["namespace"],
            "k8s-pod-name": one["pod"],
            "pod-name": f"{one['namespace']}/{one['pod']}",
        }
        status["identity"] = {"id": one["identity"], "labels": one["labels"]}
        status["labels"]["security-relevant"] = one["labels"]
        status["networking"] = {
            "addressing": [{"ipv4": one["address"], "ipv4-pool-name": "default"}],
            "container-interface-name": "eth0",
            "host-mac": one["host_mac"],
            "interface-index": one["ifindex"],
            "interface-name": one["device"],
            "mac": one["mac"],
        }
        rows = list(_policy(one["id"]))
        for side in ("realized", "spec"):
            policy = status["policy"][side]
            policy["id"] = one["identity"]
            policy["policy-enabled"] = _enforced(rows)
            for name, way in (("ingress", 0), ("egress", 1)):
                # Who may be reached whatever the port: entries without a protocol.
                policy[f"allowed-{name}-identities"] = sorted(
                    row[0] for row in rows if row[1] == way and not row[2]
                )
        return form

    def ct_list(self, words: Words) -> str:
        if unknown := set(words) - {"global", "-d", "--time-diff"}:
            raise Failed(
                f"Error: this {NAME} does not know bpf ct list {' '.join(sorted(unknown))}"
            )
        now = int(time.clock_gettime(time.CLOCK_MONOTONIC)) if len(words) > 1 else None
        out = []
        for name in ("cilium_ct4_global", "cilium_ct_any4_global"):
            with Map(bpf.GLOBALS / name, *bpf.CT) as ct:
                out += [ct_line(key, value, now) for key, value in ct.items()]
            out.append("\n")
        return "".join(out)

    def lb_list(self, words: Words) -> str:
        kind = next((w for w in words if w in ("--frontends", "--backends", "--revnat")), "")
        made = {"--backends": _backends, "--revnat": _revnat}.get(kind)
        rows = list(made() if made else _frontends(numbers=kind == "--frontends"))
        head = "BACKEND ID" if kind == "--frontends" else "BACKEND ADDRESS (REVNAT_ID) (SLOT)"
        return _listed(words, ["ID" if made else "SERVICE ADDRESS", head], rows)

    def ipcache_list(self, words: Words) -> str:
        rows = []
        with Map(bpf.GLOBALS / "cilium_ipcache_v2", *bpf.IPCACHE) as ipcache:
            for key, value in ipcache.items():
                bits = struct.unpack_from("=I", key)[0] - 32
                identity = struct.unpack_from("=I", value)[0]
                tunnel = IPv4Address(value[4:8])
                flags = "hastunnel" if value[23] & 2 else "<none>"
                said = (
                    f"identity={identity} encryptkey={value[22]} tunnelendpoint={tunnel} "
                    f"flags={flags}"
                )
                rows.append((f"{IPv4Address(key[8:12])}/{bits}", said))
        return _listed(words, ["IP PREFIX/ADDRESS", "IDENTITY"], rows)

    def policy_get(self, words: Words) -> str:
        if "--all" not in words:
            raise Failed(f"Error: this {NAME} answers only bpf policy get --all")
        found = {n: sorted(_policy(n), key=lambda row: (row[1], row)) for n in self._policy_maps()}
        paths = {n: str(bpf.policy_map(n)) for n in found}
        if "json" in words:
            return _json(
                [
                    {"EndpointID": str(n), "Path": paths[n], "Content": [*map(_policy_json, rows)]}
                    for n, rows in found.items()
                ]
            )
        numeric = "-n" in words or "--numeric" in words
        column = "IDENTITY" if numeric else "LABELS (source:key[=value])"
        head = ["POLICY", "DIRECTION", column, "PORT/PROTO", "PROXY PORT", "AUTH TYPE", "BYTES",
                "PACKETS", "PREFIX", "COOKIE"]  # fmt: skip
        identities = self._identities()
        blocks = []
        for n, rows in found.items():
            lines = [head]
            for identity, egress, protocol, port, deny in rows:
                name = PROTOCOLS.get(protocol, str(protocol))
                names = ["ANY"] if identity == 0 else identities.get(identity, [str(identity)])
                first, *more = [str(identity)] if numeric else names
                lines.append(
                    ["Deny" if deny else "Allow", "Egress" if egress else "Ingress", first,
                     f"{port}/{name}" if port else name, "NONE", "disabled", "-", "-",
                     str((8 if protocol else 0) + (16 if port else 0)), "0"]
                )  # fmt: skip
                lines += [["", "", label, *[""] * 7] for label in more]
            blocks.append(
                f"Endpoint ID: {n}\nPath: {paths[n]}\n\n{table(lines, open_end=True)}\n\n"
            )
        return "".join(blocks)

    def _policy_maps(self) -> list[int]:
        return sorted(int(p.name[-5:]) for p in bpf.GLOBALS.glob("cilium_policy_v2_*"))

    def endpoint_map(self, words: Words) -> str:
        rows = []
        with Map(bpf.GLOBALS / "cilium_lxc", *bpf.ENDPOINT) as lxc:
            for key, value in lxc.items():
                ifindex, _, number, flags = struct.unpack_from("=IHHI", value)
                said = "(localhost)"
                if not flags & 1:
                    identity, parent = struct.unpack_from("=II", value, 32)
                    said = (
                        f"id={number:<5} sec_id={identity} flags=0x{flags:04x} "
                        f"ifindex={ifindex:<3} "
                        f"mac={_mac(value[16:22])} nodemac={_mac(value[24:30])} "
                        f"parent_ifindex={parent:<3}"
                    )
                rows.append((f"{IPv4Address(key[:4])}:0", said))
        return _listed(words, ["IP ADDRESS", "LOCAL ENDPOINT INFO"], rows)

    def metrics(self, words: Words) -> str:
        rows = []
        with Map(bpf.GLOBALS / "cilium_metrics", 8, 16 * _possible_cpus()) as metrics:
            for key, value in metrics.items():
                packets, size = map(sum, zip(*struct.iter_unpack("=QQ", value), strict=True))
                reason = _REASONS.get(key[0], f"{key[0]}, 0")
                way = {1: "INGRESS", 2: "EGRESS"}.get(key[1] & 3, "UNKNOWN")
                line = struct.unpack_from("=H", key, 2)[0]
                rows.append([reason, way, str(packets), str(size), str(line), f"unknown({key[4]})"])
        if "json" in words:
            names = ("reason", "direction", "packets", "bytes", "line", "file")
            found = [dict(zip(names, row, strict=True)) for row in rows]
            numbers = ("packets", "bytes", "line")
            return _json(
                [
                    {
                        **one,
                        "direction": one["direction"].lower(),
                        **{n: int(one[n]) for n in numbers},
                    }
                    for one in found
                ]
            )
        head = ["REASON", "DIRECTION", "PACKETS", "BYTES", "LINE", "FILE"]
        return table([head, *rows], open_end=True)

    def service_list(self, words: Words) -> str:
        _only_json("service list", words)
        listed = []
        for one in self.view()["services"]:
            spec = {
                "backend-addresses": [
                    {
                        "ip": backend["ip"],
                        **({"nodeName": backend["node"]} if backend["node"] else {}),
                        "port": backend["port"],
                        "preferred": True,
                        "protocol": one["protocol"],
                        "state": "active",
                        "weight": 100,
                    }
                    for backend in one["backends"]
                ],
                "flags": {
                    "extTrafficPolicy": "Cluster",
                    "intTrafficPolicy": "Cluster",
                    "name": one["name"],
                    "namespace": one["namespace"],
                    "trafficPolicy": "Cluster",
                    "type": "ClusterIP",
                },
                "frontend-address": {
                    "ip": one["ip"],
                    "port": one["port"],
                    "protocol": one["protocol"],
                    "scope": "external",
                },
                "id": one["id"],
            }
            listed.append({"spec": spec, "status": {"realized": spec}})
        return _json(listed)

    def node_list(self, words: Words) -> str:
        _only_json("node list", words)
        return _json(
            [
                {
                    "name": node.name,
                    "primary-address": {
                        "ipv4": {"alloc-range": node.pod_cidr, "enabled": True, "ip": node.address},
                        "ipv6": {},
                    },
                    "secondary-addresses": [{"ip": node.router}],
                    "source": "local" if node == self.node else "custom-resource",
                }
                for node in NODES
            ]
        )

    def _identities(self) -> dict[int, list[str]]:
        reserved = {one["id"]: one["labels"] for one in self.forms["reserved identities"]}
        pods = {int(number): labels for number, labels in self.view()["identities"].items()}
        return dict(sorted({**reserved, **pods}.items()))

    def identity_list(self, words: Words) -> str:
        _only_json("identity list", words)
        return _json([{"id": n, "labels": labels} for n, labels in self._identities().items()])

    def identity_get(self, words: Words) -> str:
        labels = self._identities().get(int(words[0])) if words and words[0].isdigit() else None
        if labels is None:
            raise Failed(
                "Error: Cannot get identity for given ID: "
                "[GET /identity/{id}][404] getIdentityIdNotFound"
            )
        digest = hashlib.sha256("".join(f"{label};" for label in labels).encode()).hexdigest()
        return _json([{"id": int(words[0]), "labels": labels, "labelsSHA256": digest}])


def _json(value: object) -> str:
    """As Go's encoder with two blanks of indent, < and > escaped, prints it."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e") + "\n\n"


def _only_json(command: str, words: Words) -> None:
    if words not in (("-o", "json"), ("-ojson",), ("--output", "json"), ("--output=json",)):
        raise Failed(f"Error: this {NAME} answers only {command} -o json")


def _listed(words: Words, head: list[str], rows: list[tuple[str, str]]) -> str:
    """A map of two columns, as text or as JSON."""
    if "json" in words:
        return _json({key: [value] for key, value in sorted(rows)})
    return table([head, *rows])


def _mac(raw: bytes) -> str:
    return raw.hex(":").upper()


def _policy(endpoint_id: int) -> Iterator[tuple[int, int, int, int, bool]]:
    """(identity, egress, protocol, port, deny) of every entry of an endpoint's policy map."""
    with Map(bpf.policy_map(endpoint_id), *bpf.POLICY) as policy:
        for key, value in policy.items():
            _, identity, egress, protocol = struct.unpack_from("=IIBB", key)
            yield (
                identity,
                egress & 1,
                protocol,
                int.from_bytes(key[10:12], "big"),
                bool(value[2] & 1),
            )


def _enforced(rows: list[tuple[int, int, int, int, bool]]) -> str:
    open_ways = {egress for identity, egress, protocol, _, _ in rows if not (identity or protocol)}
    closed = [name for name, way in (("ingress", 0), ("egress", 1)) if way not in open_ways]
    return "both" if len(closed) == 2 else closed[0] if closed else "none"


def _policy_json(row: tuple[int, int, int, int, bool]) -> dict[str, Any]:
    identity, egress, protocol, port, deny = row
    return {
        "ProxyPortNetwork": 0,
        "Flags": int(deny),
        "AuthRequirement": 0,
        "Precedence": 4294967040,
        "Cookie": 0,
        # All bits set is how Cilium says that nothing was counted.
        "Packets": 18446744073709551615,
        "Bytes": 18446744073709551615,
        "Key": {
            "Prefixlen": 40 + (8 if protocol else 0) + (16 if port else 0),
            "Identity": identity,
            "TrafficDirection": egress,
            "Nexthdr": protocol,
            "DestPortNetwork": int.from_bytes(port.to_bytes(2, "big"), "little"),
        },
    }


def _backend_addresses() -> dict[int, tuple[str, int, int]]:
    """id → (address, port, protocol) of cilium_lb4_backends_v3."""
    with Map(bpf.GLOBALS / "cilium_lb4_backends_v3", 4, 12) as backends:
        return {
            int.from_bytes(key, "little"): (
                str(IPv4Address(value[:4])), int.from_bytes(value[4:6], "big"), value[6],
            )
            for key, value in backends.items()
        }  # fmt: skip


def _frontends(numbers: bool) -> Iterator[tuple[str, str]]:
    """Rows of cilium_lb4_services_v2, resolved or as numbers."""
    backends = _backend_addresses()
    with Map(bpf.GLOBALS / "cilium_lb4_services_v2", 12, 12) as services:
        for key, value in services.items():
            port, slot = int.from_bytes(key[4:6], "big"), int.from_bytes(key[6:8], "little")
            backend, count = struct.unpack_from("=IH", value)
            index, flags, flags2 = int.from_bytes(value[6:8], "big"), value[8], value[9]
            name = f"{IPv4Address(key[:4])}:{port}/{PROTOCOLS.get(key[8], key[8])} ({slot})"
            kind = next((word for bit, word in _SERVICE_FLAGS if flags & bit), "ClusterIP")
            if numbers:
                yield name, f"{backend} {count}[0] ({index}) [0x{flags:x} 0x{flags2:x}]"
            elif slot == 0:
                routable = "" if flags & 64 else ", non-routable"
                yield name, f"0.0.0.0:0 ({index}) (0) [{kind}{routable}] "
            elif backend not in backends:
                yield name, f"backend {backend} not found"
            else:
                ip, to, protocol = backends[backend]
                yield name, f"{ip}:{to}/{PROTOCOLS.get(protocol, protocol)} ({index}) ({slot})"


def _backends() -> Iterator[tuple[str, str]]:
    for number, (ip, _, protocol) in _backend_addresses().items():
        yield str(number), f"{PROTOCOLS.get(protocol, protocol)}://{ip}"


def _revnat() -> Iterator[tuple[str, str]]:
    with Map(bpf.GLOBALS / "cilium_lb4_reverse_nat", 2, 6) as reverse:
        for key, value in reverse.items():
            port = int.from_bytes(value[4:6], "big")
            yield str(int.from_bytes(key, "big")), f"{IPv4Address(value[:4])}:{port}"


def _possible_cpus() -> int:
    """How many CPUs a per-CPU value has room for (bpf(2): all possible ones)."""
    ranges = Path("/sys/devices/system/cpu/possible").read_text().strip().split(",")
    ends = [part.split("-") for part in ranges]
    return sum(int(end[-1]) - int(end[0]) + 1 for end in ends)
