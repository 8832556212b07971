"""How `cilium-dbg` prints: Go's tabwriter, and one conntrack entry a line.

Forms: the recorded outputs of Cilium 1.20-dev (tests/scenarios/native-iptables), cilium-facts 2.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from ipaddress import IPv4Address

PROTOCOLS = {0: "ANY", 1: "ICMP", 6: "TCP", 17: "UDP"}
_CT_FLAGS = (
    (0x01, "RxClosing"), (0x02, "TxClosing"), (0x04, "Nat64"), (0x08, "LBLoopback"),
    (0x10, "SeenNonSyn"), (0x20, "NodePort"), (0x40, "ProxyRedirect"),
)  # fmt: skip


def table(rows: Sequence[Sequence[str]], *, open_end: bool = False) -> str:
    """Columns as Go's tabwriter aligns them: at least five wide, three blanks between.

    Args:
        rows: the header first; all of one length.
        open_end: rows end without a tab, so that their last cell is not filled up.
    """
    last = len(rows[0]) - 1
    cells = [[row[i] for row in (rows[1:] if i == last else rows)] for i in range(last + 1)]
    widths = [max([5, *(len(cell) + 3 for cell in column)]) for column in cells]
    if open_end:
        widths[last] = 0
    lines = ["".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    lines[0] = lines[0][: sum(widths[:last])] + rows[0][last]
    return "\n".join(lines) + "\n"


def ct_line(key: bytes, value: bytes, now: int | None) -> str:
    """One entry in the words of Cilium 1.19 and later (cilium-facts 2.1, 3.2, 3.3).

    Args:
        key: 14 bytes.
        value: 56 bytes.
        now: seconds since boot, for the time that remains; None leaves that out.
    """
    daddr, saddr = IPv4Address(key[0:4]), IPv4Address(key[4:8])
    dport, sport = int.from_bytes(key[8:10], "big"), int.from_bytes(key[10:12], "big")
    backend, packets, size, lifetime, flags = struct.unpack_from("=QQQIH", value, 8)
    revnat, nat_port = (int.from_bytes(value[at : at + 2], "big") for at in (38, 40))
    tx, rx = value[42], value[43]
    identity, last_tx, last_rx = struct.unpack_from("=III", value, 44)
    words = "".join(f"{name} " for bit, name in _CT_FLAGS if flags & bit)
    if key[13] & 4:
        way, source, target = "SVC", f"{saddr}:{dport}", f"{daddr}:{sport}"
    else:
        way = "IN" if key[13] & 1 else "OUT"
        source, target = f"{daddr}:{sport}", f"{saddr}:{dport}"
    related = "related " if key[13] & 2 else ""
    left = f" (remaining: {lifetime - now} sec(s))" if now is not None else ""
    return (
        f"{PROTOCOLS.get(key[12], key[12])} {way} {source} -> {target} {related}"
        f"expires={lifetime}{left} Packets={packets} Bytes={size} RxFlagsSeen=0x{rx:02x} "
        f"LastRxReport={last_rx} TxFlagsSeen=0x{tx:02x} LastTxReport={last_tx} "
        f"Flags=0x{flags:04x} [ {words}] RevNAT={revnat} "
        f"SourceSecurityID={identity} BackendID={backend} NatPort={nat_port} \n"
    )
