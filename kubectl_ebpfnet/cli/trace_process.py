"""A process of a node as the source of `trace`: `pid/123@node/n`, its network namespace being no
pod's. `path` does not read such a namespace, so the trace stands without its hops."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from kubectl_ebpfnet.cli import arguments
from kubectl_ebpfnet.cli.object_words import checked_name, shown
from kubectl_ebpfnet.cli.trace_plan import ANY, SPARE_SECONDS, Limits, Plan, namespace_of, send_of
from kubectl_ebpfnet.errors import ClusterError, UsageError
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import Address, Flow, protocol_name
from kubectl_ebpfnet.model.protocol.questions import PodNamespace
from kubectl_ebpfnet.model.protocol.tracing import PacketFilter, TraceRequest
from kubectl_ebpfnet.parse import kube

if TYPE_CHECKING:
    from kubectl_ebpfnet.cli.destinations import Destination
    from kubectl_ebpfnet.cluster.client.api import Api
    from kubectl_ebpfnet.collect.gatherer import Gatherer
    from kubectl_ebpfnet.model.evidence import Bundle

_WORD = re.compile(r"pid/([1-9][0-9]{0,6})@node/(.+)")


@dataclass(frozen=True, slots=True)
class ProcessQuestion:
    """What a process of a node sends to whom.

    Attributes:
        pid, node: of the process, as the node numbers it.
        to: the destination.
        protocol: IANA number.
        version: of IP, None for what the destination has.
        text: `pid/123@node/n → 1.1.1.1:80/TCP`.
    """

    pid: int
    node: str
    to: Destination
    protocol: int
    version: int | None
    text: str


def is_process(word: str) -> bool:
    """Tell whether a source is a process."""
    return word.startswith("pid/")


def question(
    source: str, destination: str, protocol: str, *, ipv4: bool, ipv6: bool
) -> ProcessQuestion:
    """Read the words. Raises UsageError."""
    found = _WORD.fullmatch(source)
    if found is None:
        raise UsageError(f"{shown(source)}: no process of a node", hint="e.g. pid/4711@node/n1")
    if not destination:
        raise UsageError("DESTINATION is missing", hint=f"e.g. trace {source} 1.1.1.1:80 --send")
    to = arguments.destination(destination)
    if to.kind == "name":
        raise UsageError(f"{shown(destination)}: a name is looked up as a pod does it",
                         hint="give its address")  # fmt: skip
    number = arguments.protocol(protocol, to)
    version = arguments.ip_version(ipv4=ipv4, ipv6=ipv6, to=to)
    node = checked_name(source, found[2])
    end = f"[{to.text}]" if ":" in to.text and to.port is not None else to.text
    port = "" if to.port is None else f":{to.port}"
    text = f"{source} → {end}{port}/{protocol_name(number)}"
    return ProcessQuestion(int(found[1]), node, to, number, version, text)


def plan(
    gatherer: Gatherer, asked: ProcessQuestion, namespace: str, limits: Limits
) -> tuple[Plan, Bundle]:
    """Return what is watched, and what was read for it.

    Raises:
        NotFound: the node or the destination is not there.
        ClusterError: it has no address.
    """
    from kubectl_ebpfnet.cluster.resolve import find_node

    gatherer.look_for_answerers()
    node = find_node(gatherer.api, asked.node).name
    address = _address(gatherer, asked, namespace)
    gatherer.find_answerers()
    pods = _pods_on(gatherer.api, node)
    flow = Flow(asked.protocol, ANY[address.version], None, address, asked.to.port)
    request = TraceRequest(
        (PacketFilter(None, address, None, asked.to.port, asked.protocol),),
        seconds=limits.seconds + SPARE_SECONDS,
        data=limits.data,
        send=send_of(flow, limits) if limits.send else None,
        sender_pid=asked.pid,
        pods=pods,
    )
    note = "of a process's way the tables are not read, and its own node alone is watched"
    return Plan(asked.text, flow, (node,), {node: request}, notes=(note,)), gatherer.bundle()


def _pods_on(api: Api, node: str) -> tuple[PodNamespace, ...]:
    """Return the pods of a node, whose namespaces then have names; () where none may be listed."""
    with contextlib.suppress(ClusterError):
        listed = api.pods(field_selector=f"spec.nodeName={node}")
        pods = (kube.pod(item) for item in listed)
        return tuple(namespace_of(pod) for pod in pods if not pod.host_network)
    return ()


def _address(gatherer: Gatherer, asked: ProcessQuestion, namespace: str) -> Address:
    to = asked.to
    if to.address is not None:
        return to.address
    found = _addresses(gatherer.api, to, namespace, gatherer)
    fitting = [each for each in found if asked.version in (None, each.version)]
    if not fitting:
        raise ClusterError(f"{to.text} has no such address")
    return fitting[0]


def _addresses(
    api: Api, to: Destination, namespace: str, gatherer: Gatherer
) -> tuple[Address, ...]:
    from kubectl_ebpfnet.cluster.resolve import find_node, find_pod, find_service

    namespace = to.namespace or namespace
    if to.kind == "node":
        return find_node(api, to.name).internal_addresses
    if to.kind == "service":
        return find_service(api, to.name, namespace).cluster_addresses
    return find_pod(api, to.kind, to.name, namespace, gatherer.warn).addresses
