"""nftables' chains of a network namespace, by nfnetlink: which there are, at which hooks.

Their rules are printed by the node's own nft (host/programs.py); where it has none, this tells that
there are chains which nobody could read, or that there are none.

Sources: Linux include/uapi/linux/netfilter/nf_tables.h, net/netfilter/nf_tables_api.c
(nf_tables_fill_table_info, nf_tables_fill_chain_info), include/uapi/linux/netfilter.h (NFPROTO_*,
NF_INET_*, NF_NETDEV_*).
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from typing import Any

from pyroute2.netlink import NETLINK_NETFILTER, NLM_F_DUMP
from pyroute2.netlink.nfnetlink.nftsocket import nft_chain_msg, nft_table_msg

from kubectl_ebpfnet.errors import KernelError, Unsupported
from kubectl_ebpfnet.model.nft import NftChain
from kubectl_ebpfnet.model.protocol.questions import NodeRequest
from kubectl_ebpfnet.node.netlink import transport

_NFTABLES = 10 << 8  # NFNL_SUBSYS_NFTABLES
_GET_TABLE, _GET_CHAIN = _NFTABLES | 1, _NFTABLES | 4
_ALL_FAMILIES = struct.pack("=BBH", 0, 0, 0)  # struct nfgenmsg: NFPROTO_UNSPEC
_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
_INET = ("prerouting", "input", "forward", "output", "postrouting", "ingress")
_NETDEV = ("ingress", "egress")
_DORMANT = 1  # NFT_TABLE_F_DORMANT


def chains(_request: NodeRequest) -> Iterator[NftChain]:
    """Yield the base chains of this network namespace, iptables' own among them.

    Raises:
        KernelError: EPERM without CAP_NET_ADMIN.
    """
    try:
        tables = list(_dump(_GET_TABLE, nft_table_msg))
    except KernelError as error:
        if isinstance(error, Unsupported) or error.errno == errno.EINVAL:
            return  # a kernel without nf_tables has no table (nfnetlink_rcv_msg)
        raise
    dormant = {
        (table["nfgen_family"], table.get_attr("NFTA_TABLE_NAME"))
        for table in tables
        if (table.get_attr("NFTA_TABLE_FLAGS") or 0) & _DORMANT
    }
    for chain in _dump(_GET_CHAIN, nft_chain_msg):
        hook = chain.get_attr("NFTA_CHAIN_HOOK")
        if hook is None:
            continue
        family, table = chain["nfgen_family"], chain.get_attr("NFTA_CHAIN_TABLE")
        names = _NETDEV if _FAMILIES.get(family) == "netdev" else _INET
        number = hook.get_attr("NFTA_HOOK_HOOKNUM")
        yield NftChain(
            _FAMILIES.get(family, str(family)),
            table,
            chain.get_attr("NFTA_CHAIN_NAME"),
            names[number] if number < len(names) else str(number),
            chain.get_attr("NFTA_CHAIN_TYPE") or "",
            hook.get_attr("NFTA_HOOK_PRIORITY"),
            "accept" if chain.get_attr("NFTA_CHAIN_POLICY") == 1 else "drop",
            tuple(_devices(hook)),
            (family, table) in dormant,
        )


def _devices(hook: Any) -> Iterator[str]:
    name = hook.get_attr("NFTA_HOOK_DEV")
    several = hook.get_attr("NFTA_HOOK_DEVS")
    if several is not None:
        yield from (value for _, value in several["attrs"])
    elif name is not None:
        yield name


def _dump(type: int, message: type[Any]) -> Iterator[Any]:
    found = transport.answers(
        NETLINK_NETFILTER, type, NLM_F_DUMP, _ALL_FAMILIES, "list nftables' chains"
    )
    for data, start, _ in found:
        decoded = message(data, offset=start - transport.HEADER.size)
        decoded.decode()
        yield decoded
