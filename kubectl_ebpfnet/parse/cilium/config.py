"""Cilium's settings: the ConfigMap `cilium-config`, or `cilium config view`.

The keys of each version: cilium-facts 4.6. A missing key leaves a setting unknown: built-in
defaults differ between versions, so they are not guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from string import ascii_letters, digits

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model import json_members as js
from kubectl_ebpfnet.model.cilium_config import DatapathConfig
from kubectl_ebpfnet.model.net import Network
from kubectl_ebpfnet.parse._text import lines

VIEW = "cilium config view"
# Characters of a key: Kubernetes API reference, ConfigMap.
_KEY = frozenset(ascii_letters + digits + "-._")
_TRUTHS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
"""Go's strconv.ParseBool."""
_DURATION = re.compile(r"(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,6})s)?")
"""Go's time.ParseDuration, as far as whole seconds need it."""


def view(data: bytes) -> DatapathConfig:
    """Return the settings of the datapath by `cilium config view`. Raises ParseError."""
    return datapath(settings(data))


def settings(data: bytes) -> dict[str, str]:
    """Parse `cilium config view`: `key   value` lines. Raises ParseError.

    A value may continue in the next lines (`hubble-metrics` does); a line that cannot begin with a
    key belongs to the value before it.
    """
    found: dict[str, str] = {}
    last = ""
    for number, text in lines(data, VIEW):
        words = text.split(None, 1)
        if not words:
            continue
        if _KEY.issuperset(words[0]):
            last = words[0]
            found[last] = words[1].strip() if len(words) > 1 else ""
        elif last:
            found[last] = f"{found[last]} {text.strip()}".strip()
        else:
            raise ParseError(VIEW, number, "not a line of key and value")
    return found


def datapath(settings: Mapping[str, str]) -> DatapathConfig:
    """Return the settings of the datapath; settings without a key are "" and None."""
    tunnel = settings.get("tunnel", "")
    routing = settings.get("routing-mode", "")
    if not routing and tunnel:
        routing = "native" if tunnel == "disabled" else "tunnel"
    protocol = settings.get("tunnel-protocol", "") or (tunnel if tunnel != "disabled" else "")
    legacy = _flag(settings, "enable-host-legacy-routing")
    return DatapathConfig(
        ipam=settings.get("ipam", "").lower(),
        routing_mode=routing,
        tunnel_protocol=protocol,
        # `false` only means that BPF host routing is wanted: the agent may fall back.
        host_routing="legacy" if legacy else "",
        masquerade=_masquerade(settings, "enable-ipv4-masquerade", "masquerade"),
        masquerade6=_masquerade(settings, "enable-ipv6-masquerade"),
        ip_masq_agent=_flag(settings, "enable-ip-masq-agent"),
        native_cidrs=_native(settings),
        remote_node_masquerade=_flag(settings, "enable-remote-node-masquerade"),
        kube_proxy_replacement=_kpr(settings),
        socket_lb=_socket_lb(settings),
        socket_lb_host_only=_flag(settings, "bpf-lb-sock-hostns-only"),
        packet_lb=_packet_lb(settings),
        node_port_last=_last_port(settings.get("node-port-range", "")),
        node_port_mode=settings.get("bpf-lb-mode", "") or settings.get("node-port-mode", ""),
        sctp=_flag(settings, "enable-sctp"),
        acceleration=settings.get("bpf-lb-acceleration", "").lower(),
        no_backend_response=settings.get("service-no-backend-response", "").lower(),
        node_port_mode_annotation=_flag(settings, "bpf-lb-mode-annotation"),
        devices=_devices(settings),
        # `true` only means that tcx is wanted: the kernel may lack it.
        attach_mode="tc" if _flag(settings, "enable-tcx") is False else "",
        datapath_mode=settings.get("datapath-mode", ""),
        encryption=_encryption(settings),
        node_encryption=_flag(settings, "encrypt-node"),
        strict_encryption=_strict(settings),
        strict_but_nodes=_flag(
            settings,
            "encryption-strict-egress-allow-remote-node-identities",
            "encryption-strict-mode-allow-remote-node-identities",
        ),
        host_firewall=_flag(settings, "enable-host-firewall"),
        policy_audit=_flag(settings, "policy-audit-mode"),
        source_ranges=_flag(settings, "enable-svc-source-range-check"),
        dns_transparent=_flag(settings, "dnsproxy-enable-transparent-mode"),
        egress_gateway=_flag(settings, "enable-ipv4-egress-gateway", "enable-egress-gateway"),
        endpoint_routes=_flag(settings, "enable-endpoint-routes"),
        ct_syn_timeout=_seconds(settings, "bpf-ct-timeout-regular-tcp-syn"),
        ct_fin_timeout=_seconds(settings, "bpf-ct-timeout-regular-tcp-fin"),
        ct_any_timeout=_seconds(settings, "bpf-ct-timeout-regular-any"),
    )


def merge(status: DatapathConfig, config: DatapathConfig) -> DatapathConfig:
    """Merge two sources; the agent's status wins where it has a value."""
    known = {
        field.name: getattr(status, field.name)
        for field in fields(status)
        if getattr(status, field.name) not in ("", None, ())
    }
    return replace(config, **known)


def _flag(settings: Mapping[str, str], *names: str) -> bool | None:
    for name in names:
        value = _TRUTHS.get(settings.get(name, "").lower())
        if value is not None:
            return value
    return None


def _last_port(text: str) -> int | None:
    """Return the end of a range `30000,32767`, None where it is not understood."""
    read = re.fullmatch(r"[0-9]{1,5}[,-]([0-9]{1,5})", text)
    return int(read[1]) if read is not None else None


def _seconds(settings: Mapping[str, str], name: str) -> int | None:
    """Return a Go duration such as `1m0s` in whole seconds, 0 where it is not understood."""
    if not (text := settings.get(name, "")):
        return None
    read = _DURATION.fullmatch(text)
    if read is None:
        return 0
    hours, minutes, seconds = (int(part or 0) for part in read.groups())
    return hours * 3600 + minutes * 60 + seconds


def _masquerade(settings: Mapping[str, str], *keys: str) -> str:
    enabled = _flag(settings, *keys)
    by_bpf = _flag(settings, "enable-bpf-masquerade")
    if enabled is False:
        return "disabled"
    if enabled is None or by_bpf is None:
        return ""
    return "bpf" if by_bpf else "iptables"


def _native(settings: Mapping[str, str]) -> tuple[Network, ...]:
    names = ("ipv4-native-routing-cidr", "ipv6-native-routing-cidr", "native-routing-cidr")
    return js.networks([settings.get(name, "") for name in names])


def _kpr(settings: Mapping[str, str]) -> bool | None:
    # `partial` and `probe` replace a part only: neither yes nor no.
    value = settings.get("kube-proxy-replacement", "").lower()
    return {"strict": True, "disabled": False}.get(value, _TRUTHS.get(value))


def _socket_lb(settings: Mapping[str, str]) -> bool | None:
    # Kube-proxy replacement enables it regardless of its own key, and the old word `disabled`
    # disables it (pkg/kpr/kpr.go; ≤ 1.17 daemon/cmd/kube_proxy_replacement.go).
    if settings.get("kube-proxy-replacement", "").lower() == "disabled":
        return False
    replaces_kube_proxy = _kpr(settings)
    enabled = _flag(settings, "bpf-lb-sock", "enable-host-reachable-services")
    if replaces_kube_proxy or enabled:
        return True
    return False if replaces_kube_proxy is False and enabled is False else None


def _packet_lb(settings: Mapping[str, str]) -> bool | None:
    """ENABLE_PER_PACKET_LB of bpf/bpf_lxc.c, beside socket load-balancing in pods."""
    said = [_flag(settings, key) for key in ("enable-envoy-config", "enable-sctp")]
    return True if any(said) else False if False in said else None


def _devices(settings: Mapping[str, str]) -> tuple[str, ...]:
    # `eth+` is a pattern, no name of a device.
    words = settings.get("devices", "").replace(",", " ").split()
    return tuple(word for word in words if not word.endswith("+"))


def _strict(settings: Mapping[str, str]) -> Network | None:
    """Return the prefix of strict mode; its keys have `egress` in them since 1.19."""
    enabled = ("enable-encryption-strict-mode-egress", "enable-encryption-strict-mode")
    if not any(_flag(settings, key) for key in enabled):
        return None
    keys = ("encryption-strict-egress-cidr", "encryption-strict-mode-cidr")
    return next((js.network(settings[key]) for key in keys if settings.get(key)), None)


def _encryption(settings: Mapping[str, str]) -> str:
    if _flag(settings, "enable-wireguard"):
        return "wireguard"
    if _flag(settings, "enable-ipsec"):
        return "ipsec"
    return ""
