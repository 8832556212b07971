"""The commands of kubectl that several answers advise, each word of a cluster in its quotes."""

from __future__ import annotations

from kubectl_ebpfnet.model.shell import word


def edit_service(namespace: str, name: str) -> str:
    """Return the command that edits a Service."""
    return f"kubectl edit service -n {word(namespace)} {word(name)}"


def list_slices(namespace: str, service: str) -> str:
    """Return the command that lists the EndpointSlices of a Service."""
    own = word(f"kubernetes.io/service-name={service}")
    return f"kubectl get endpointslices -n {word(namespace)} -l {own}"


def describe_pod(namespace: str, name: str) -> str:
    """Return the command that describes a pod."""
    return f"kubectl describe pod -n {word(namespace)} {word(name)}"


def describe_service(namespace: str, name: str) -> str:
    """Return the command that shows a Service with its events."""
    return f"kubectl describe service -n {word(namespace)} {word(name)}"


def pod_logs(namespace: str, name: str) -> str:
    """Return the command that prints a pod's log."""
    return f"kubectl logs -n {word(namespace)} {word(name)}"


def pods_on(node: str) -> str:
    """Return the flag that selects the pods of a node."""
    return f"--field-selector {word(f'spec.nodeName={node}')}"
