"""Wait for a netkat's end, and remove its filter: the child of clsact.py.

    python -m kubectl_ebpfnet.node.netkat.redirect.watch IFINDEX HANDLE

It ends the wait at the end of its stdin. pyroute2 (22 MB, 0.1 s) is imported only then: the filter
passes all packets meanwhile, and a node pod has 256 MB for all of them.
"""

from __future__ import annotations

import os
import signal
import sys


def main(ifindex: int, handle: int) -> None:
    """Wait, and remove the filter of a handle. Raises KernelError."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.closerange(1, 3)
    os.read(0, 1)
    from kubectl_ebpfnet.node.netkat.redirect.clsact import remove_filters

    remove_filters(ifindex, handle)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
