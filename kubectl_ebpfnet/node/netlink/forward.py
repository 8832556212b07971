"""Where the node sends what a pod sends: the kernel's look-up with the pod's host side as iif.

The device is not known to whoever asks, but the kernel knows: IFLA_LINK of the pod's device is the
ifindex of its other end, in the namespace that IFLA_LINK_NETNSID names (rtnetlink(7)).
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
    """The node's routing decision for a packet of a pod.

    Args:
        request: `ebpfnet-node forward DEST from SOURCE …` in a pod's namespace; the words are
            those of `fib` but for `iif`, which is the host side of the pod's device here.

    Returns:
        One answer for each device of the pod that leads to the node.

    Raises:
        KernelError: the words are not these, or no device of the pod leads to the node.
    """
    peers = {link.peer_index for link in links(request) if link.peer_index} - {None}
    with netns.inside(HOST):
        ends = [link.name for link in links(request) if link.index in peers and link.index != 1]
        if not ends:
            raise KernelError("no device of the pod has its other end on the node")
        for name in ends:
            argv = (PROGRAM, "fib", *request.argv[2:], "iif", name)
            yield from fib(dataclasses.replace(request, argv=argv))
