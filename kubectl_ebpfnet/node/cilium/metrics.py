"""Cilium's counters of forwarded and dropped packets, equal to `cilium-dbg bpf metrics list`.

Sources: Cilium pkg/maps/metricsmap, bpf/lib/metrics.h; names in node/cilium/drop_reasons.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_ebpfnet.model.cilium_events import MetricRow
from kubectl_ebpfnet.model.protocol.questions import NodeRequest
from kubectl_ebpfnet.node.cilium import drop_reasons, layout_tables, pins

MAP = "cilium_metrics"


def rows(_: NodeRequest) -> Iterator[MetricRow]:
    """Yield every counter, summed over the CPUs; `source` is "" in versions without it.

    Raises:
        KernelError: the map is not pinned, has unknown sizes, or may not be read.
    """
    folder = pins.root()
    pins.present(folder, (MAP,))
    for metric_key, key, values in pins.entries(folder, MAP, layout_tables.METRICS):
        metric = metric_key(key)
        packets, size = layout_tables.counters(values)
        source = f"{drop_reasons.file(metric.file)}:{metric.line}"
        yield MetricRow(
            reason=drop_reasons.reason(metric.reason),
            direction=metric.direction,
            packets=packets,
            bytes=size,
            source=source if metric.file or metric.line else "",
        )
