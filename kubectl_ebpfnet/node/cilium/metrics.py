"""Cilium's counters of forwarded and dropped packets: what `cilium-dbg bpf metrics list` prints.

Sources: Cilium pkg/maps/metricsmap, bpf/lib/metrics.h; the names of kubectl_ebpfnet/node/
drop_reasons.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_ebpfnet.model.cilium import MetricRow
from kubectl_ebpfnet.model.protocol.questions import NodeRequest
from kubectl_ebpfnet.node.cilium import drop_reasons, layout_tables, pins

MAP = "cilium_metrics"


def rows(_: NodeRequest) -> Iterator[MetricRow]:
    """Every counter, summed over the CPUs; `source` is "" in versions that do not keep it.

    Raises:
        KernelError: the map is not pinned, is of unknown sizes, or may not be read.
    """
    folder = pins.root()
    pins.present(folder, (MAP,))
    for metric_key, key, values in pins.entries(folder, MAP, layout_tables.METRICS):
        counted = metric_key(key)
        packets, size = layout_tables.counters(values)
        kept = counted.file or counted.line
        yield MetricRow(
            reason=drop_reasons.reason(counted.reason),
            direction=counted.direction,
            packets=packets,
            bytes=size,
            source=f"{drop_reasons.file(counted.file)}:{counted.line}" if kept else "",
        )
