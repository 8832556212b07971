"""The node's routing decision for a pod's packet: a look-up with the pod's host device as iif.

The kernel knows the host device: IFLA_LINK of the pod's device is the ifindex of its peer, in the
namespace of IFLA_LINK_NETNSID (rtnetlink(7)).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.model.kernel import FibAnswer
from kubectl_ebpfnet.model.protocol.questions import PROGRAM, NodeRequest
from kubectl_ebpfnet.node.host import netns
from kubectl_ebpfnet.node.netlink.links import links
from kubectl_ebpfnet.node.netlink.routes import fib

HOST = "/proc/1/ns/net"


def forward(request: NodeRequest) -> Iterator[FibAnswer]:
    """Yield the node's routing decision for a packet of a pod.

    Args:
        request: `ebpfnet-node forward DEST from SOURCE …` in a pod's namespace; the words are
            those of `fib` except `iif`, which is the peer of the pod's device.

    Returns:
        One answer for each device of the pod that leads to the node.

    Raises:
        KernelError: malformed words, or no device of the pod leads to the node.
    """
    peers = {link.peer_index for link in links(request) if link.peer_index} - {None}
    with netns.inside(HOST):
        ends = [link.name for link in links(request) if link.index in peers and link.index != 1]
        if not ends:
            raise KernelError("no device of the pod has its other end on the node")
        for name in ends:
            argv = (PROGRAM, "fib", *request.argv[2:], "iif", name)
            yield from fib(dataclasses.replace(request, argv=argv))
