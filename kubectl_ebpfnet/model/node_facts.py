"""The class of the facts in the node side's answers.

Apart from the table of facts, which is needed to ask: these classes are needed to read alone, and
take 30 ms to make.
"""

from __future__ import annotations

from typing import Any

from kubectl_ebpfnet.model.bpf import Attachment, BpfPin, Program
from kubectl_ebpfnet.model.cilium import (
    EgressGatewayPolicy,
    EndpointState,
    Frontend,
    IpcacheEntry,
    LocalEndpoint,
    PolicyEntry,
    SourceRange,
    TailCalls,
)
from kubectl_ebpfnet.model.cilium_ct import CtEntry, NatEntry
from kubectl_ebpfnet.model.cilium_events import MetricRow
from kubectl_ebpfnet.model.conntrack import ConntrackEntry
from kubectl_ebpfnet.model.encryption import (
    WireGuardDevice,
    WireGuardPeer,
    XfrmPolicy,
    XfrmState,
)
from kubectl_ebpfnet.model.events import TraceLayer, TraceLine
from kubectl_ebpfnet.model.kernel import (
    Counter,
    FibAnswer,
    InterfaceAddress,
    KernelFacts,
    Link,
    Listener,
    Neighbour,
    Qdisc,
    Route,
    Rule,
    Sysctl,
)
from kubectl_ebpfnet.model.net import Network
from kubectl_ebpfnet.model.netkat.attempt import ConnectAttempt
from kubectl_ebpfnet.model.nft import NftChain
from kubectl_ebpfnet.model.proxy import FqdnEntry
from kubectl_ebpfnet.model.room import MapRoom, SnatUse

NODE_FACTS: dict[str, Any] = {
    "links": Link,
    "addresses": InterfaceAddress,
    "routes": Route,
    "rules": Rule,
    "neighbours": Neighbour,
    "nft-chains": NftChain,
    "attachments": Attachment,
    "qdiscs": Qdisc,
    "sysctls": Sysctl,
    "programs": Program,
    "pins": BpfPin,
    "counters": Counter,
    "kernel": KernelFacts,
    "conntrack": ConntrackEntry,
    "wireguard": WireGuardDevice,
    "wireguard-peers": WireGuardPeer,
    "xfrm": XfrmState,
    "xfrm-policies": XfrmPolicy,
    "xfrm-errors": Counter,
    "tcp-listeners": Listener,
    "udp-sockets": Listener,
    "map-room": MapRoom,
    "ct": CtEntry,
    "endpoint-states": EndpointState,
    "tail-calls": TailCalls,
    "fqdn-cache": FqdnEntry,
    "policy": PolicyEntry,
    "nat": NatEntry,
    "ipcache": IpcacheEntry,
    "endpoints": LocalEndpoint,
    "lb": Frontend,
    "source-ranges": SourceRange,
    "egress": EgressGatewayPolicy,
    "ipmasq": Network,
    "metrics": MetricRow,
    "fib": FibAnswer,
    "forward": FibAnswer,
    "snat-use": SnatUse,
    "probe": ConnectAttempt,
    "trace": TraceLine,
    "trace-layers": TraceLayer,
}
"""Question of the node side (model/protocol/questions.py) → the class of its facts."""
