"""Whether all objects of a kind were listed: only then does one that is missing not exist.

A list of one Service's EndpointSlices, or of one namespace, says nothing of others; a list that
was cut short, or is no JSON, says nothing at all.
"""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model.evidence import API, Record


def records_of(
    cluster: ClusterView, resource: str, namespace: str = "", selector: str = ""
) -> Iterator[Record]:
    """Yield the API server's records that list a kind, be it without success.

    Args:
        cluster: the bundle's indexes.
        resource: its name in the API, plural.
        namespace: whose objects are meant; "" for those of the whole cluster.
        selector: labels that select the objects that are meant, "" for all.
    """
    wanted: list[tuple[str, ...]] = [(), ("-A",)]
    if namespace:
        wanted.append(("-n", namespace))
    if selector:
        wanted += [(*scope, "-l", selector) for scope in wanted]
    for record in cluster.bundle.at(API):
        if record.argv[:2] == ("get", resource) and record.argv[2:] in wanted:
            yield record


def read(
    cluster: ClusterView, resource: str, namespace: str = "", selector: str = ""
) -> Record | None:
    """Return a record that lists a kind and was read; None without one.

    Args:
        cluster: the bundle's indexes.
        resource, namespace, selector: as records_of takes them.
    """
    found = records_of(cluster, resource, namespace, selector)
    return next((record for record in found if record.number in cluster.understood), None)


def is_left(cluster: ClusterView, name: str) -> bool:
    """Tell whether a CiliumNode is what is left of a node: the Nodes were listed, and lack it."""
    return name not in cluster.listed_nodes and of_nodes(cluster) is not None


def of_nodes(cluster: ClusterView) -> Record | None:
    """Return a record that tells which nodes there are, with which addresses and prefixes of pods;
    None where some may be missing.

    That is a list of Nodes, or of a cluster with many, the server's table of them together with the
    CiliumNodes: these have all addresses of their Nodes, and their prefixes where Cilium takes them
    from there (Cilium pkg/nodediscovery). A node without one was read by its Node.
    """
    found = read(cluster, "nodes")
    if found is not None:
        return found
    rows = cluster.kube.node_rows
    if not rows or read(cluster, "ciliumnodes") is None:
        return None
    known = {node.name for node in cluster.kube.cilium_nodes}
    known.update(node.name for node in cluster.kube.nodes)
    return cluster.api_record("nodes") if all(row.name in known for row in rows) else None
