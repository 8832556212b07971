"""Objects of the agent's API: version, status, endpoints, nodes, identities.

Source: Cilium api/v1/models; which version has which member: cilium-facts 2.8, 2.10, 2.11.
"""

from __future__ import annotations

from typing import Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model import json_members as js
from kubectl_ebpfnet.model.cilium import CiliumNode, Endpoint, Identity
from kubectl_ebpfnet.model.cilium_config import DatapathConfig
from kubectl_ebpfnet.model.encryption import WireGuardDevice
from kubectl_ebpfnet.model.evidence import NOWHERE, Span
from kubectl_ebpfnet.model.net import Address, Network
from kubectl_ebpfnet.parse import _json
from kubectl_ebpfnet.parse._text import decode, json_value

VERSION = "cilium version"
STATUS = "cilium status"
ENDPOINTS = "cilium endpoint list"
NODES = "cilium node list"
IDENTITIES = "cilium identity list"


def version(data: bytes) -> str:
    """Return the daemon's version, else the client's, else ""."""
    versions: dict[str, str] = {}
    for line in decode(data, VERSION).splitlines():
        name, colon, rest = line.partition(":")
        if colon and rest.split():
            versions[name.strip()] = rest.split()[0]
    return versions.get("Daemon") or versions.get("Client", "")


def status(data: bytes) -> DatapathConfig:
    """Parse `status -o json`; facts that it lacks are "" and None. Raises ParseError."""
    value = json_value(data, STATUS)
    if not isinstance(value, dict):
        raise ParseError(STATUS, 0, "not a JSON object")
    routing = js.text(value, "routing", "inter-host-routing-mode").lower()
    host = js.text(value, "routing", "intra-host-routing-mode") or js.text(
        value, "host-routing", "mode"
    )
    kpr = js.dig(value, "kube-proxy-replacement")
    features = js.dig(kpr, "features")
    masquerade = _masquerade(js.dig(value, "masquerading"), "ipv4")
    return DatapathConfig(
        routing_mode=routing,
        tunnel_protocol=js.text(value, "routing", "tunnel-protocol").lower(),
        host_routing=host.lower(),
        masquerade=masquerade,
        masquerade6=_masquerade(js.dig(value, "masquerading"), "ipv6"),
        masquerading=Span(path=("masquerading",)) if masquerade else NOWHERE,
        ip_masq_agent=js.flag(value, "masquerading", "ip-masq-agent"),
        native_cidrs=_native_cidrs(js.dig(value, "masquerading")),
        kube_proxy_replacement=_kpr(js.text(kpr, "mode")),
        socket_lb=_socket_lb(features),
        socket_lb_host_only=js.flag(features, "bpfSocketLBHostnsOnly"),
        node_port_last=js.number(features, "nodePort", "portMax"),
        node_port_mode=js.text(features, "nodePort", "mode").lower(),
        node_port_mode_annotation=_mode_annotation(features),
        acceleration=_acceleration(features),
        devices=_devices(kpr),
        attach_mode=js.text(value, "attach-mode").lower(),
        datapath_mode=js.text(value, "datapath-mode").lower(),
        encryption=js.text(value, "encryption", "mode").lower(),
        node_encryption=_node_encryption(
            js.text(value, "encryption", "wireguard", "node-encryption")
        ),
        host_firewall=_enabled(js.text(value, "host-firewall", "mode")),
        clock_source=js.text(value, "clock-source", "mode").lower(),
        clock_hertz=js.number(value, "clock-source", "hertz"),
        state=js.text(value, "cilium", "state"),
    )


def wireguard(data: bytes) -> tuple[WireGuardDevice, ...]:
    """Return the WireGuard devices of `status -o json`. Raises ParseError."""
    value = json_value(data, STATUS)
    found = []
    for number, item in enumerate(js.items(value, "encryption", "wireguard", "interfaces")):
        name = js.text(item, "name")
        if name:
            found.append(
                WireGuardDevice(
                    name=name,
                    public_key=js.text(item, "public-key"),
                    port=js.number(item, "listen-port"),
                    peers=js.number(item, "peer-count"),
                    span=Span(path=("encryption", "wireguard", "interfaces", number)),
                )
            )
    return tuple(found)


def _masquerade(value: Any, version: str) -> str:
    if not isinstance(value, dict):
        return ""
    protocols = js.dig(value, "enabledProtocols")
    if isinstance(protocols, dict):
        enabled = js.flag(protocols, version)
    else:
        enabled = js.flag(value, "enabled")  # up to Cilium 1.10
    if not enabled:
        return "disabled"
    return js.text(value, "mode").lower()


def _native_cidrs(value: Any) -> tuple[Network, ...]:
    names = ("snat-exclusion-cidr-v4", "snat-exclusion-cidr-v6", "snat-exclusion-cidr")
    return js.networks([js.text(value, name) for name in names])


def _acceleration(features: object) -> str:
    """Return how XDP accelerates NodePorts, in the ConfigMap's words; "" where nothing says."""
    said = js.text(features, "nodePort", "acceleration").lower()
    return "disabled" if said == "none" else said


def _mode_annotation(features: Any) -> bool | None:
    """Tell whether the agent heeds the annotation of the forwarding mode; None where it has no list
    of annotations."""
    annotations = js.dig(features, "annotations")
    known = isinstance(annotations, list)
    return "service.cilium.io/forwarding-mode" in annotations if known else None


def _kpr(mode: str) -> bool | None:
    return {"true": True, "strict": True, "false": False, "disabled": False}.get(mode.lower())


def _socket_lb(features: Any) -> bool | None:
    for name in ("socketLB", "hostReachableServices"):
        section = js.dig(features, name)
        if isinstance(section, dict):
            return bool(js.flag(section, "enabled"))
    return None


def _devices(kpr: Any) -> tuple[str, ...]:
    device_list = [js.text(item, "name") for item in js.items(kpr, "deviceList")]
    device_names = tuple(name for name in device_list if name)
    return device_names or js.texts(kpr, "devices")


def _node_encryption(mode: str) -> bool | None:
    """Return whether a node encrypts what it sends itself; a control plane's is opted out."""
    return False if mode.lower() == "optedout" else _enabled(mode)


def _enabled(mode: str) -> bool | None:
    return {"enabled": True, "disabled": False}.get(mode.lower())


def endpoints(data: bytes) -> tuple[Endpoint, ...]:
    """Parse `endpoint list -o json`. Raises ParseError."""
    found = []
    for span, item in _json.list_items(data, ENDPOINTS):
        number = js.number(item, "id")
        if number is None:
            raise ParseError(ENDPOINTS, 0, "an endpoint without an id")
        found.append(endpoint(number, js.dig(item, "status"), span))
    return tuple(found)


def endpoint(number: int, status: Any, span: Span = NOWHERE) -> Endpoint:
    """Return an endpoint from its `status`.

    Args:
        number: id of the endpoint.
        status: of the agent's API, or of a CiliumEndpoint object.
        span: of the object that has this `status`.
    """
    networking = js.dig(status, "networking")
    names = js.dig(status, "external-identifiers")
    namespace, pod = (js.text(names, "k8s-namespace"), js.text(names, "k8s-pod-name"))
    if not pod:
        namespace, _, pod = js.text(names, "pod-name").rpartition("/")
    return Endpoint(
        id=number,
        identity=js.number(status, "identity", "id") or 0,
        labels=js.texts(status, "identity", "labels"),
        state=js.text(status, "state"),
        addresses=endpoint_addresses(networking),
        mac=js.text(networking, "mac").lower(),
        host_mac=js.text(networking, "host-mac").lower(),
        interface=js.text(networking, "interface-name"),
        ifindex=js.number(networking, "interface-index"),
        policy_enabled=js.text(status, "policy", "realized", "policy-enabled"),
        policy_audit=_audit(status),
        namespace=namespace,
        pod=pod,
        health=js.text(status, "health", "overallHealth"),
        policy_revision=js.number(status, "policy", "realized", "policy-revision"),
        wanted_revision=js.number(status, "policy", "spec", "policy-revision"),
        span=span,
    )


def _audit(status: Any) -> bool | None:
    option = _enabled(js.text(status, "realized", "options", "PolicyAuditMode"))
    enforcement = js.text(status, "policy", "realized", "policy-enabled")
    return option or enforcement.startswith("audit-") if option is not None or enforcement else None


def endpoint_addresses(networking: Any) -> tuple[Address, ...]:
    """Return the addresses of a `networking` section."""
    texts = [
        js.text(item, family)
        for item in js.items(networking, "addressing")
        for family in ("ipv4", "ipv6")
    ]
    return js.addresses(texts)


def nodes(data: bytes) -> tuple[CiliumNode, ...]:
    """Parse `node list -o json`. Raises ParseError."""
    return tuple(_node(item, span) for span, item in _json.list_items(data, NODES))


def _node(item: Any, span: Span) -> CiliumNode:
    cluster, _, name = js.text(item, "name").rpartition("/")
    if not name:
        raise ParseError(NODES, 0, "a node without a name")
    primaries = [js.dig(item, "primary-address", family) for family in ("ipv4", "ipv6")]
    cidrs = js.networks([js.text(address, "alloc-range") for address in primaries])
    secondary = js.addresses(
        [js.text(address, "ip") for address in js.items(item, "secondary-addresses")]
    )
    router_addresses = tuple(a for a in secondary if any(a in cidr for cidr in cidrs))
    return CiliumNode(
        name=name,
        addresses=js.addresses([js.text(address, "ip") for address in primaries])
        + tuple(a for a in secondary if a not in router_addresses),
        router_addresses=router_addresses,
        pod_cidrs=cidrs,
        cluster=cluster,
        span=span,
    )


def identities(data: bytes) -> tuple[Identity, ...]:
    """Parse `identity list -o json` (each under `identity`) and `identity get` (bare). Raises
    ParseError."""
    found = []
    for span, item in _json.list_items(data, IDENTITIES):
        body = js.dig(item, "identity")
        body = body if isinstance(body, dict) else item
        number = js.number(body, "id")
        if number is not None:
            found.append(Identity(number, js.texts(body, "labels"), span))
    return tuple(found)
