"""Addresses of a DNS name: `getent ahosts NAME` (nsswitch.conf, glibc and musl), and the look-up of
this machine, each with an address first on a line.
"""

from __future__ import annotations

from kubectl_ebpfnet.model import json_members
from kubectl_ebpfnet.model.net import Address


def addresses(data: bytes) -> tuple[Address, ...]:
    """Return the addresses, each once and in their order; skip lines that begin with none, or with
    an address of one link (`fe80::1%eth0`)."""
    lines = data.decode("utf-8", "replace").split("\n")
    return json_members.addresses(line.split(" ", 1)[0].strip() for line in lines)
