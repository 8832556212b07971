"""What has to come of each check of checks.py, on any kernel of 5.10 and newer.

Reasons of drops came with Linux 5.17, and got finer since; functions are inlined differently, and
have no names before 5.13. So each is one of several.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from kubectl_ebpfnet.node.trace.packets import PROGRAMS
from tests.node.trace.checks import FLOWS, PINGS

Expectation = Callable[[Any], None]
_FORTH = (
    "client:queue client:xmit router:netif_rx router:receive router:queue router:xmit "
    "server:netif_rx server:receive"
)
_BACK = (
    "server:queue server:xmit router:netif_rx router:receive router:queue router:xmit "
    "client:netif_rx client:receive"
)
_TUNNELLED = {
    f"forth {_FORTH.replace('router:xmit', 'router:xmit router:queue router:xmit', 1)}"
    " server:gro server:receive": 1,
    "back server:queue server:xmit server:queue server:xmit router:netif_rx router:receive"
    " router:gro router:receive router:queue router:xmit client:netif_rx client:receive": 1,
}


def _programs(told: Any) -> None:
    assert told["refused"] == []
    assert sorted(told["attached"]) == sorted(PROGRAMS.values())


def _followed(told: Any) -> None:
    """All flows, both ways, through all places, and nothing else."""
    assert _ways(told) == {f"forth {_FORTH}": FLOWS, f"back {_BACK}": FLOWS}
    assert told["foreign"] == 0
    assert told.get("others", 1) > 0


def _ways(told: Any) -> dict[str, int]:
    """Without the ends of buffers: not every kernel tells of those that a process has read, and a
    tunnel takes a buffer with more room where it needs one."""
    ways: Counter[str] = Counter()
    for way, count in told["ways"].items():
        ways[" ".join(word for word in way.split() if not word.endswith(":consume"))] += count
    return ways


def _by(*how: str) -> Expectation:
    def check(told: Any) -> None:
        _followed(told)
        assert set(told["matched"]) == set(how)

    return check


def _tcp(told: Any) -> None:
    nodes = {place.partition(":")[0] for place in told["places"]}
    assert nodes >= {f"{way} {node}" for way in ("forth", "back") for node in _NODES}
    # Ends drop what came twice, and what a socket still holds when it is closed (the FIN).
    assert [drop for drop in told["drops"] if drop.startswith("router")] == []
    assert told["largest"] > 1


_NODES = ("client", "router", "server")


def _pings(told: Any) -> None:
    """All go both ways; no drop is one of an only buffer."""
    ways = {way.split()[0]: count for way, count in told["ways"].items()}
    assert ways == {"forth": PINGS, "back": PINGS}
    assert all(_BACK in way and "client:deliver" in way for way in told["ways"] if "back" in way)
    assert sum(told["drops"].values()) == PINGS
    assert {drop.split()[3] for drop in told["drops"]} <= {"lives", "lived"}


def _lost(node: str, reasons: str, functions: str, error: str = "") -> Expectation:
    """One drop of the only buffer, with place and reason, and the ICMP error that tells of it."""

    def check(told: Any) -> None:
        # The ICMPv6 error itself, once it is taken: Linux 6.1 frees it as it frees what it drops,
        # and 5.10 does not say which function did.
        taken = ("icmpv6_rcv none back", "client - - none back")
        drops = {each: n for each, n in told["drops"].items() if not each.endswith(taken)}
        (drop,), (count,) = drops, drops.values()
        where, reason, function, copies, direction = drop.split()
        assert (count, where, copies, direction) == (1, node, "none", "forth")
        assert reason in ("-", *reasons.split())
        assert function.partition(".")[0] in ("-", *functions.split())
        assert told["errors"] == ([error] if error else [])

    return check


def _tunnel(kind: str, number: int) -> Expectation:
    def check(told: Any) -> None:
        if "unsupported" in told:
            pytest.skip(told["unsupported"])
        assert _ways(told) == _TUNNELLED
        assert told["tunnels"] == [f"{kind} {number} 10.4.0.{host}" for host in (1, 2)]

    return check


def _vlan(told: Any) -> None:
    assert {"router:netif_rx 8100", "router:receive 8100"} <= set(told)


def _fragments(told: Any) -> None:
    """One piece of three, at each place."""
    assert {place: told["pieces"].get(place) for place in _FORTH.split()} == dict.fromkeys(
        _FORTH.split(), 1
    )


def _budget(told: Any) -> None:
    """What is there and what is counted as lost is all: 20 questions, and 20 answers, at 8 places;
    most kernels tell of their ends too."""
    all_of_them = range(20 * 16, 20 * 18 + 1)
    read, over, full = told["budget"]
    assert read >= 50
    assert over > 0
    assert full == 0
    assert read + over in all_of_them
    read, over, full = told["ring"]
    assert (read + full in all_of_them, over) == (True, 0)
    assert 0 < read < 20


def _drops_only(told: Any) -> None:
    (drop,) = told["drops"]
    assert drop.startswith("server ")
    assert told["drops"][drop] == 1


EXPECTED: dict[str, Expectation] = {
    "programs": _programs,
    "plain": _by("tuple"),
    "masquerade": _by("tuple", "conntrack", "learned"),
    "masquerade_ipv6": _by("tuple", "conntrack", "learned"),
    "bpf_nat": _by("tuple", "address", "learned"),
    "tcp": _tcp,
    "pings": _pings,
    "drop_nft": _lost("router", "NETFILTER_DROP", "nft_do_chain nf_hook_slow"),
    "drop_iptables": _lost("router", "NETFILTER_DROP", "nft_do_chain nf_hook_slow"),
    "drop_tc": _lost("router", "TC_INGRESS", "__netif_receive_skb_core sch_handle_ingress"),
    "drop_xdp": _lost("server", "XDP NOT_SPECIFIED", "do_xdp_generic netif_receive_generic_xdp"),
    "drop_closed_udp": _lost("server", "NO_SOCKET", "__udp4_lib_rcv udp_rcv", "back (3, 3)"),
    "drop_closed_tcp": _lost("server", "NO_SOCKET", "tcp_v4_rcv"),
    "drop_closed_ipv6": _lost("server", "NO_SOCKET", "__udp6_lib_rcv udpv6_rcv", "back (1, 4)"),
    "drop_blackhole": _lost("router", "IP_INNOROUTES NOT_SPECIFIED", "ip_error"),
    "drop_unreachable": _lost("router", "IP_INNOROUTES NOT_SPECIFIED", "ip_error", "back (3, 1)"),
    "drop_rp_filter": _lost("router", "IP_RPFILTER NOT_SPECIFIED", "ip_rcv_finish_core"),
    "drop_mtu": _lost("router", "PKT_TOO_BIG NOT_SPECIFIED", "ip_forward", "back (3, 4)"),
    "vxlan": _tunnel("vxlan", 42),
    "geneve": _tunnel("geneve", 42),
    "ipip": _tunnel("ipip", 0),
    "vlan": _vlan,
    "fragments": _fragments,
    "budget": _budget,
    "drops_only": _drops_only,
}
