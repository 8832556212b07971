"""Services of the API, and the endpoints behind them.

Source: Kubernetes API reference, core/v1 and discovery.k8s.io v1 and v1beta1.
"""

from __future__ import annotations

from typing import Any

from kubectl_ebpfnet.model import json_members as js
from kubectl_ebpfnet.model.evidence import NOWHERE, Span
from kubectl_ebpfnet.model.kube import Service, ServiceEndpoint, ServicePort
from kubectl_ebpfnet.parse import _kube as members


def service(value: Any, span: Span = NOWHERE) -> Service:
    """Return a Service; `span` is its place in a record."""
    spec = js.dig(value, "spec")
    addresses = [*js.texts(spec, "clusterIPs"), js.text(spec, "clusterIP")]
    ports = tuple(
        ServicePort(
            name=js.text(port, "name"),
            protocol=members.protocol(js.text(port, "protocol")),
            port=js.number(port, "port") or 0,
            target_port=str(js.dig(port, "targetPort") or ""),
            node_port=js.number(port, "nodePort") or 0,
        )
        for port in js.items(spec, "ports")
    )
    ingress = js.items(value, "status", "loadBalancer", "ingress")
    proxied = [item for item in ingress if js.text(item, "ipMode") == "Proxy"]
    hostnames = [js.text(item, "hostname") for item in ingress]
    return Service(
        namespace=members.namespace(value),
        name=members.name(value),
        type=js.text(spec, "type") or "ClusterIP",
        cluster_addresses=js.addresses(addresses),
        ports=ports,
        external_addresses=js.addresses(js.texts(spec, "externalIPs")),
        ingress_addresses=js.addresses([js.text(item, "ip") for item in ingress]),
        selector=js.pairs(spec, "selector"),
        external_traffic_policy=js.text(spec, "externalTrafficPolicy"),
        internal_traffic_policy=js.text(spec, "internalTrafficPolicy"),
        external_name=js.text(spec, "externalName"),
        health_check_node_port=js.number(spec, "healthCheckNodePort") or 0,
        ingress_hostnames=tuple(name for name in hostnames if name),
        proxied_addresses=js.addresses([js.text(item, "ip") for item in proxied]),
        # Validation accepts white space (pkg/proxy/serviceport.go).
        source_ranges=js.networks(
            [text.strip() for text in js.texts(spec, "loadBalancerSourceRanges")]
        ),
        traffic_distribution=js.text(spec, "trafficDistribution"),
        load_balancer_class=js.text(spec, "loadBalancerClass"),
        publish_not_ready=bool(js.flag(spec, "publishNotReadyAddresses")),
        labels=js.pairs(value, "metadata", "labels"),
        annotations=js.pairs(value, "metadata", "annotations"),
        conditions=tuple(map(members.condition, js.items(value, "status", "conditions"))),
        span=span,
    )


def slice_endpoints(value: Any, span: Span = NOWHERE) -> list[ServiceEndpoint]:
    """Return every address of an EndpointSlice with every port; `span` is its place in a record.

    A condition that is not said counts as the API tells: ready and serving true, terminating false.
    """
    service_name = js.text(value, "metadata", "labels", "kubernetes.io/service-name")
    ports = js.items(value, "ports")
    found = []
    for index, item in enumerate(js.items(value, "endpoints")):
        place = span.member("endpoints", index)
        conditions = js.dig(item, "conditions")
        ready = js.flag(conditions, "ready")
        serving = js.flag(conditions, "serving")
        target = js.dig(item, "targetRef")
        zones = tuple(js.text(zone, "name") for zone in js.items(item, "hints", "forZones"))
        node_name = js.text(item, "nodeName") or js.text(item, "topology", "kubernetes.io/hostname")
        for address in js.addresses(js.texts(item, "addresses")):
            for port in ports:
                found.append(
                    ServiceEndpoint(
                        namespace=members.namespace(value),
                        service=service_name,
                        address=address,
                        port_name=js.text(port, "name"),
                        protocol=members.protocol(js.text(port, "protocol")),
                        port=js.number(port, "port") or 0,
                        ready=ready is not False,
                        serving=(ready is not False) if serving is None else serving,
                        terminating=bool(js.flag(conditions, "terminating")),
                        node=node_name,
                        pod=js.text(target, "name") if js.text(target, "kind") == "Pod" else "",
                        zones=zones,
                        span=place,
                    )
                )
    return found
