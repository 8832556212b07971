"""Settings of Cilium's ConfigMap by their names, for those that the datapath's facts leave out."""

from __future__ import annotations

from kubectl_ebpfnet.explain.views.cluster import ClusterView


def config_data(cluster: ClusterView) -> dict[str, str] | None:
    """Return cilium-config, None where it was not read: of what `cilium config view` prints, only
    the datapath's settings are kept."""
    found = (data for _, name, data in cluster.kube.config_maps if name == "cilium-config")
    data = next(found, None)
    return dict(data) if data is not None else None


def setting(cluster: ClusterView, key: str) -> str:
    """Return a setting of cilium-config, "" where it has none, and where it was not read."""
    return (config_data(cluster) or {}).get(key, "")
