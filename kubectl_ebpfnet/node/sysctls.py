"""The sysctls of a network namespace that decide what becomes of a packet.

/proc/sys/net is of the namespace of the thread that reads it.

Sources: Linux Documentation/networking/ip-sysctl.rst, nf_conntrack-sysctl.rst.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kubectl_ebpfnet.model.kernel import Sysctl
from kubectl_ebpfnet.model.protocol.questions import NodeRequest

_ROOT = Path("/proc/sys")
# The catalogue's SYSCTLS asks an agent for the same names.
_WANTED = (
    "net/ipv4/ip_forward",
    "net/ipv4/conf/*/forwarding",
    "net/ipv4/conf/*/rp_filter",
    "net/ipv4/conf/*/accept_local",
    "net/ipv4/conf/*/src_valid_mark",
    "net/ipv6/conf/*/forwarding",
    "net/ipv6/conf/*/force_forwarding",
    "net/ipv6/conf/*/disable_ipv6",
    "net/netfilter/nf_conntrack_count",
    "net/netfilter/nf_conntrack_max",
    "net/netfilter/nf_conntrack_*_timeout*",
)


def sysctls(_request: NodeRequest) -> Iterator[Sysctl]:
    """Yield the sysctls of this network namespace; those that this kernel lacks are left out."""
    for pattern in _WANTED:
        for file in sorted(_ROOT.glob(pattern)):
            try:
                value = int(file.read_text(encoding="ascii"))
            except (OSError, ValueError):  # its device is gone meanwhile
                continue
            yield Sysctl(str(file.relative_to(_ROOT)), value)
