"""A Pod of the API: what runs where, why it does not, and what it is given.

Source: Kubernetes API reference, core/v1.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kubectl_ebpfnet.model import json_members as js
from kubectl_ebpfnet.model.evidence import NOWHERE, Span
from kubectl_ebpfnet.model.kube import Condition, ContainerPort, ContainerStatus, DnsConfig, Pod
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.parse import _kube as members

_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"


def pod(value: Any, span: Span = NOWHERE) -> Pod:
    """Return a Pod; `span` is its place in a record."""
    spec, status = js.dig(value, "spec"), js.dig(value, "status")
    ips = [js.text(item, "ip") for item in js.items(status, "podIPs")]
    containers = js.items(spec, "containers")
    names = [js.text(item, "name") for item in containers]
    annotations = js.pairs(value, "metadata", "annotations")
    default = dict(annotations).get(_DEFAULT_CONTAINER)
    conditions = js.items(status, "conditions")
    unmet = tuple(members.condition(c) for c in conditions if js.text(c, "status") != "True")
    statuses = _statuses(status)
    ports = [port for container in containers for port in js.items(container, "ports")]
    status_reason = js.text(status, "reason")
    owner = _controller(value)
    return Pod(
        namespace=members.namespace(value),
        name=members.name(value),
        node=js.text(spec, "nodeName"),
        phase=js.text(status, "phase"),
        addresses=js.addresses(ips) or js.addresses([js.text(status, "podIP")]),
        host_network=bool(js.flag(spec, "hostNetwork")),
        ready=members.is_ready(conditions),
        containers=tuple(sorted((n for n in names if n), key=lambda name: name != default)),
        reason=_reason(statuses, status_reason, unmet),
        labels=js.pairs(value, "metadata", "labels"),
        owner_kind=js.text(owner, "kind"),
        owner_name=js.text(owner, "name"),
        span=span,
        uid=js.text(value, "metadata", "uid"),
        deleting=bool(js.text(value, "metadata", "deletionTimestamp")),
        status_reason=status_reason,
        status_message=js.text(status, "message"),
        unmet=unmet,
        statuses=statuses,
        annotations=annotations,
        image=js.text(containers[0], "image") if containers else "",
        nominated_node=js.text(status, "nominatedNodeName"),
        host_ports=_host_ports(ports),
        ports=_container_ports(ports),
        runtime_class=js.text(spec, "runtimeClassName"),
        dns_policy=js.text(spec, "dnsPolicy"),
        dns=_dns_config(js.dig(spec, "dnsConfig")),
        host_aliases=_host_aliases(spec),
    )


def _controller(value: Any) -> Any:
    """Return the owner that made the pod, None for a pod that a person made."""
    owners = js.items(value, "metadata", "ownerReferences")
    return next((owner for owner in owners if js.flag(owner, "controller")), None)


def _host_ports(ports: list[Any]) -> tuple[tuple[int, int], ...]:
    return tuple(
        (number, members.protocol(js.text(port, "protocol")))
        for port in ports
        if (number := js.number(port, "hostPort"))
    )


def _container_ports(ports: list[Any]) -> tuple[ContainerPort, ...]:
    return tuple(
        ContainerPort(number, members.protocol(js.text(port, "protocol")), js.text(port, "name"))
        for port in ports
        if (number := js.number(port, "containerPort"))
    )


def _host_aliases(spec: Any) -> tuple[tuple[Address, tuple[str, ...]], ...]:
    return tuple(
        (address, js.texts(item, "hostnames"))
        for item in js.items(spec, "hostAliases")
        for address in js.addresses([js.text(item, "ip")])
    )


def _dns_config(value: Any) -> DnsConfig:
    options = {js.text(item, "name"): js.text(item, "value") for item in js.items(value, "options")}
    ndots = options.get("ndots", "")
    return DnsConfig(
        js.addresses(js.texts(value, "nameservers")),
        js.texts(value, "searches"),
        int(ndots) if ndots.isascii() and ndots.isdecimal() and len(ndots) < 4 else None,
    )


def _statuses(status: Any) -> tuple[ContainerStatus, ...]:
    return (
        *(_container(item, init=True) for item in js.items(status, "initContainerStatuses")),
        *(_container(item, init=False) for item in js.items(status, "containerStatuses")),
    )


def _container(item: Any, *, init: bool) -> ContainerStatus:
    states = js.dig(item, "state")
    known = states if isinstance(states, dict) else {}
    state = next((each for each in ("running", "terminated", "waiting") if each in known), "")
    why = known.get(state)
    return ContainerStatus(
        name=js.text(item, "name"),
        id=js.text(item, "containerID").rpartition("//")[2],
        state=state,
        reason=js.text(why, "reason"),
        message=js.text(why, "message"),
        exit_code=js.number(why, "exitCode"),
        restarts=max(js.number(item, "restartCount") or 0, 0),
        init=init,
    )


def _reason(
    statuses: Iterable[ContainerStatus], status_reason: str, unmet: Iterable[Condition]
) -> str:
    """Return why a pod does not run: the reason of a waiting container, else of the status
    (`Evicted`), else of a condition that is False."""
    for status in statuses:
        if status.state == "waiting" and status.reason and not status.init:
            return status.reason
    if status_reason:
        return status_reason
    for c in unmet:
        if c.status == "False" and c.reason:
            return f"{c.reason}: {c.message}" if c.message else c.reason
    return ""
