"""`tc -s -j qdisc show` and the statistics of `ip -s -j link`, part of parse.iproute.

Sources: iproute2's ip/ipaddress.c (__print_link_stats), tc/tc_qdisc.c (print_qdisc), tc/tc_util.c
(print_tcstats2_attr), tc/q_tbf.c, tc/q_netem.c (percentages are parts of 1 in JSON). Verified with
iproute2 6.1; netem by its source.
"""

from __future__ import annotations

from typing import Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.kernel import Counter, Qdisc
from kubectl_ebpfnet.parse._text import json_integer, json_records, json_text, quoted

_LINK, _QDISC = "ip -s link", "tc qdisc"
_DIRECTIONS = ("rx", "tx")
_STATISTICS = ("stats64", "stats644", "stats")
"""Of a kernel with 64 bits, the same by an older iproute2, and of an old kernel."""


def device_counters(data: bytes) -> tuple[Counter, ...]:
    """Return the counters of each device, by the kernel's names: `rx_dropped`.

    () where the devices were listed without statistics.
    """
    found = []
    for span, record in json_records(data, _LINK):
        device = json_text(record, "ifname", _LINK)
        key = next((key for key in _STATISTICS if key in record), "")
        statistics = _object(record, key, _LINK)
        for way in _DIRECTIONS:
            for name in _object(statistics, way, _LINK):
                value = json_integer(statistics[way], name, _LINK)
                place = span.member(key, way, name)
                found.append(Counter("device", f"{way}_{name}", value or 0, device, place))
    return tuple(found)


def qdiscs(data: bytes) -> tuple[Qdisc, ...]:
    """Return the queueing disciplines, in their order."""
    return tuple(
        Qdisc(
            device=json_text(record, "dev", _QDISC),
            kind=json_text(record, "kind", _QDISC),
            root=record.get("root") is True,
            packets=json_integer(record, "packets", _QDISC) or 0,
            drops=json_integer(record, "drops", _QDISC) or 0,
            waiting=json_integer(record, "qlen", _QDISC) or 0,
            rate=_rate(_object(record, "options", _QDISC)),
            loss=_loss(_object(record, "options", _QDISC)),
            span=span,
        )
        for span, record in json_records(data, _QDISC)
    )


def _rate(options: dict[str, Any]) -> int | None:
    within = options.get("rate")
    holder = within if isinstance(within, dict) else options
    return json_integer(holder, "rate", _QDISC)


def _loss(options: dict[str, Any]) -> float:
    part = _object(options, "loss-random", _QDISC).get("loss", 0)
    if isinstance(part, bool) or not isinstance(part, int | float) or not 0 <= part <= 1:
        raise ParseError(_QDISC, 1, f"not a part of 1: {quoted(part)}")
    return float(part)


def _object(record: dict[str, Any], name: str, source: str) -> dict[str, Any]:
    value = record.get(name, {})
    if not isinstance(value, dict):
        raise ParseError(source, 1, f'"{name}" is {quoted(value)}, not an object')
    return value
