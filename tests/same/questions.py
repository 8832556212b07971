"""Questions about a recorded cluster: its pods, nodes and Services, the world, and no cluster.

Every question is asked as JSON, and once more as a text: each the next form in turn. Which
questions are taken out of the many depends on their words alone, so every run asks the same.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from tests.same.clusters import Cluster

PATHS = 10
"""Derived questions of `path` for a cluster; those that its authors asked come on top."""
_TEXTS = [
    ["-o", "table"],
    ["-o", "wide", "-v"],
    ["-o", "table", "--color", "always"],
    ["-o", "table", "-v"],
    ["-o", "wide"],
    ["-o", "wide", "--color", "always"],
    ["-o", "yaml"],
    ["-o", "mermaid"],
    ["-o", "dot"],
]
_LISTS = [["-o", "table"], ["-o", "wide"], ["-o", "table", "-v"]]
_WORLD = [
    ["1.1.1.1:80"],
    ["1.1.1.1:7777"],
    ["1.1.1.1:53", "--protocol", "udp"],
    ["1.1.1.1", "--protocol", "icmp"],
    ["198.51.100.7:443"],
    ["169.254.169.254:80"],
    ["[2606:4700::1111]:443"],
    ["example.com:443"],
    ["10.96.0.10:53", "--protocol", "udp"],
]
_COMMANDS = [
    *("path", "programs", "flows", "probe-lb", "netkat", "doctor"),
    *("capture", "cleanup", "completion", "options", "version"),
]
_NO_CLUSTER = [
    "",
    "--help",
    "help path",
    "--version",
    "absent",
    "--absent",
    *(f"{command} {flag}" for command in _COMMANDS for flag in ("--help", "--absent", "")),
    "version -o json",
    "version -o yaml",
    *(f"__complete {command} " for command in ("", *_COMMANDS)),
    *(f"__complete {command} -" for command in _COMMANDS),
    "__complete path --output ",
    "__complete path --protocol ",
    "__complete path pod/client ",
    *(
        f"path {words} --from demo"
        for words in (
            "client 1.1.1.1:80",
            "pod/client",
            "pod/client 1.1.1.1",
            "pod/client 1.1.1.1:0",
            "pod/client 1.1.1.1:http",
            "pod/client 1.1.1.0/24",
            "pod/client http://example.com/",
            "pod/client fe80::1%eth0",
            "pod/client [::1",
            "pod/client deploy/web:80",
            "pod/client 1.1.1.1:80 --protocol icmp",
            "pod/client 1.1.1.1:80 --protocol sctp",
            "pod/client 1.1.1.1:80 -o absent",
            "pod/client 1.1.1.1:80 --color absent",
            "pod/client 1.1.1.1:80 --timeout soon",
            "pod/Client 1.1.1.1:80",
            "client.default 1.1.1.1:80",
            "svc/web 1.1.1.1:80",
            "deploy/web 1.1.1.1:80",
            "pod/absent 1.1.1.1:80",
            "pod/client pod/absent:80",
            "pod/client svc/absent:80",
            "pod/client 1.1.1.1:80 -n absent",
        )
    ),
    *(
        f"{words} -o yaml --from demo"
        for words in ("flows pod/client", "programs node/node1", "doctor")
    ),
    "flows svc/web --from demo",
    "flows pod/client --to web --from demo",
    "flows pod/client --protocol sctp --from demo",
    "programs node/absent --from demo",
    "programs node/node1 -o tree --from demo",
    "path pod/client 1.1.1.1:80 --from /absent.zip",
    "path pod/client 1.1.1.1:80 --from /dev/null",
    "path pod/client 1.1.1.1:80 --from /etc/passwd",
    "path pod/client 1.1.1.1:80 --from /etc",
    # No kubeconfig is there: what each command says before it asks a cluster.
    "path pod/client 1.1.1.1:80",
    "flows pod/client",
    "programs node/node1",
    "doctor",
    "cleanup",
    "capture -o case.zip pod/client --redact",
    "probe-lb svc/web --dry-run=client",
    "probe-lb svc/web --attempts 0",
    "probe-lb pod/web",
    "netkat node/node1 1.1.1.1 80",
    "netkat node/node1 -l",
]

Words = list[str]


def without_cluster() -> list[Words]:
    """Questions that no recorded cluster is needed for: help, completion, usage errors."""
    return [line.split(" ") if line else [] for line in _NO_CLUSTER]


def about(cluster: Cluster, turn: Iterator[int]) -> list[Words]:
    """The questions about a recorded cluster, with --from.

    Args:
        cluster: what is asked about is in it.
        turn: counts up, over all clusters: which form of text comes next.
    """
    places = [["pod/" + name, "-n", namespace] for namespace, name in cluster.seen[:2]]
    places += [["node/" + _name(node)] for node in cluster.nodes[:2]]
    lists = [[command, *place] for command in ("flows", "programs") for place in places]
    for place in places[:1]:
        lists += [["flows", *place, "--to", "1.1.1.1:80"], ["flows", *place, "--protocol", "udp"]]
    questions = [
        *_in_forms([*cluster.asked, *taken(cluster, PATHS)], _TEXTS, turn),
        *_in_forms([*lists, ["doctor"]], _LISTS, turn),
    ]
    return [[*words, "--from", cluster.place] for words in questions]


def _in_forms(questions: Iterable[Words], texts: list[Words], turn: Iterator[int]) -> list[Words]:
    forms = [(words, texts[next(turn) % len(texts)]) for words in questions]
    return [[*words, *form] for words, text in forms for form in (["-o", "json"], text)]


def taken(cluster: Cluster, count: int) -> list[Words]:
    """Derived questions, three quarters of them from pods that were asked themselves."""

    def mixed(sources: list[tuple[str, str]]) -> list[Words]:
        pairs = itertools.product(sources, _destinations(cluster))
        found = [["path", f"pod/{name}", *to, "-n", space] for (space, name), to in pairs]
        return sorted(
            found, key=lambda words: zlib.crc32(" ".join([cluster.name, *words]).encode())
        )

    pods = [_space_and_name(pod) for pod in cluster.pods]
    others = mixed([pod for pod in pods if pod not in cluster.seen])[: count // 4]
    return mixed(cluster.seen)[: count - len(others)] + others


def _destinations(cluster: Cluster) -> list[Words]:
    found = list(_WORLD)
    for pod in cluster.pods:
        found += _to_pod(pod)
    addresses = [one["address"] for node in cluster.nodes for one in _addresses(node)]
    for service in cluster.services:
        found += _to_service(service, addresses)
    for node in cluster.nodes:
        found += [[f"node/{_name(node)}:10250"], [f"node/{_name(node)}", "--protocol", "icmp"]]
    return found + [[_with_port(address, 22)] for address in addresses]


def _to_pod(pod: dict[str, Any]) -> list[Words]:
    space, name = _space_and_name(pod)
    ports = [
        port["containerPort"]
        for container in pod["spec"].get("containers", [])
        for port in container.get("ports", [])
    ]
    port, address = (ports or [8080])[0], pod.get("status", {}).get("podIP", "")
    found = [[f"pod/{name}:{port}", "--to-namespace", space]]
    if address:
        found += [[_with_port(address, port)], [address, "--protocol", "icmp"]]
    return found


def _to_service(service: dict[str, Any], nodes: list[str]) -> list[Words]:
    space, name = _space_and_name(service)
    spec = service["spec"]
    ingress = service.get("status", {}).get("loadBalancer", {}).get("ingress", [])
    addresses = [
        *(address for address in [spec.get("clusterIP", "")] if address not in ("", "None")),
        *spec.get("externalIPs", []),
        *(one["ip"] for one in ingress if "ip" in one),
    ]
    found = [[f"svc/{name}", "--to-namespace", space]]
    for port in spec.get("ports", []):
        flags = ["--protocol", port.get("protocol", "TCP").lower()]
        found.append([f"svc/{name}:{port['port']}", "--to-namespace", space, *flags])
        if port.get("name"):
            found.append([f"svc/{name}:{port['name']}", "--to-namespace", space, *flags])
        found += [[_with_port(address, port["port"]), *flags] for address in addresses]
        if port.get("nodePort"):
            found += [[_with_port(address, port["nodePort"]), *flags] for address in nodes]
    return found


def _addresses(node: dict[str, Any]) -> list[dict[str, str]]:
    said = node.get("status", {}).get("addresses", [])
    return [one for one in said if one["type"] in ("InternalIP", "ExternalIP")]


def _with_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _name(thing: dict[str, Any]) -> str:
    return str(thing["metadata"]["name"])


def _space_and_name(thing: dict[str, Any]) -> tuple[str, str]:
    return thing["metadata"].get("namespace", "default"), _name(thing)
