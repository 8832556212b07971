"""Two network namespaces with one of every link, address, route, rule and neighbour we tell of.

Needs root and Linux. What this kernel cannot make is said in `missing`, not hidden.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.network_namespaces import Namespace, namespaces

_DEADLINE_S = 20.0
_VETHS = """
link set lo up
link add far0 type veth peer name eth0 netns {other}
link set far0 up
"""
_SET_UP = """
link add d0 type veth peer name d1
link add down0 type veth peer name down1
link add vx0 type vxlan external dstport 8472
link add vx1 type vxlan id 42 remote 10.9.0.9 dstport 4789
link add gen0 type geneve external
link add gen1 type geneve id 7 remote 10.9.0.9 dstport 6082
link add br0 type bridge
link add bond0 type bond
link add p0 type dummy
link add br0p mtu 1400 type veth peer name br0q
link add v5 link d0 type vlan id 5
link add mac0 link d0 type macvlan mode bridge
link add ipv0 link far0 type ipvlan mode l3
link add tun4 type ipip remote 10.9.0.9 local 10.9.0.1
link add gre4 type gretap remote 10.9.0.9 local 10.9.0.1
link add tun6 type ip6tnl remote fd00::9 local fd00::1
link add red type vrf table 10
link set br0p master br0
link set p0 master bond0
link set d0 up
link set d1 up
link set br0 up
link set br0p up
link set bond0 up
link set vx0 up
link set red up
link set d0 alias an_alias
link property add dev d0 altname another-name
addr add 10.9.0.1/24 brd + dev d0
addr add 10.9.0.7/24 dev d0 label d0:1
addr add 10.7.7.7/32 dev br0 scope link
addr add 10.7.7.8/32 dev br0 scope host
addr add 10.7.7.9/32 dev br0 scope 77
addr add 10.8.0.1 peer 10.8.0.2/30 dev br0
addr add 10.66.0.1/24 dev far0
addr add fd00::1/64 dev d0 nodad
addr add fd00:1::1 peer fd00:1::2/64 dev d0 nodad
addr add fd66::1/64 dev far0 nodad
addr add 10.9.0.3/24 dev d1
route add default via 10.9.0.2 mtu 1450 metric 7
route add 10.20.0.0/16 nexthop via 10.9.0.2 weight 1 nexthop via 10.66.0.2 dev far0 weight 5
route add 10.21.0.0/16 nexthop dev d0 nexthop via inet6 fd00::9 dev d0
route add blackhole 10.30.0.0/16 metric 5
route add unreachable 10.31.0.0/16
route add prohibit 10.32.0.0/16
route add throw 10.33.0.0/16
route add 10.40.0.0/16 via inet6 fd00::9 dev d0 src 10.9.0.1
route add 1.2.3.4 via 10.99.0.9 dev d0 onlink mtu lock 1400 advmss 1000
route add 10.44.0.0/16 dev far0 scope 33
route add 10.45.0.0/16 tos 0x10 dev far0
route add default dev d0 table 200 scope link
route add 10.50.0.0/16 dev d0 proto static table 2005
route add 10.51.0.0/16 dev far0 table 2006
route add 192.0.2.0/24 via 10.66.0.2 table 2007
nexthop add id 5 via 10.9.0.2 dev d0
nexthop add id 6 via 10.66.0.2 dev far0
nexthop add id 7 group 5/6
route add 10.60.0.0/16 nhid 5
route add 10.61.0.0/16 nhid 7
route add 10.67.0.0/16 via 10.66.0.2
-6 route add default via fd00::2 metric 55
-6 route add default dev d0 metric 66
-6 route add fd01::/32 from fd00::/64 via fd00::3
-6 route add blackhole fd02::/32
-6 route add unreachable fd04::/32
-6 route add fd03::/32 nexthop via fd00::4 nexthop via fd00::5 dev d0
-6 route add prohibit fd05::/32 table 201
-6 route add fd06::/48 via fd00::3 mtu 1280 src fd00::1 metric 9
rule add from 10.9.0.1 lookup 200 pref 8
rule add fwmark 0x200/0xf00 pref 9 lookup 2005
rule add fwmark 0x5 lookup 2006 pref 11
rule add fwmark 0/0xff lookup 201 pref 11
rule add not from 10.9.0.0/16 to 10.7.0.0/16 iif lo oif d0 lookup 202 pref 12
rule add from all goto 32766 pref 13
rule add from 10.1.0.0/16 ipproto tcp sport 5 dport 80-90 unreachable pref 14
rule add to 192.0.2.0/24 ipproto udp dport 53 lookup 2007 pref 14
rule add from all uidrange 70000-70001 blackhole pref 15
rule add from all tos 0x10 prohibit pref 16
rule add from all lookup main suppress_prefixlength 0 pref 17
rule add from all lookup 210 suppress_ifgroup 4 pref 17
rule add iif nosuch lookup 5 pref 19
rule add iif d0 lookup default pref 19
rule add from all nop pref 20
rule add from all goto 555 pref 21
rule add from 10.2.0.0/16 realms 3/4 lookup 203 pref 22 protocol static
-6 rule add from fd00::/8 to fd01::/16 fwmark 0xf00/0xf00 lookup 2005 pref 22
-6 rule add not to fd00::/8 ipproto udp dport 53 prohibit pref 23
neigh add 10.9.0.2 lladdr aa:bb:cc:dd:ee:ff dev d0 nud permanent
neigh add 10.9.0.3 lladdr aa:bb:cc:dd:ee:fe dev d0 nud stale router
neigh add 10.9.0.4 dev d0 nud failed
neigh add 10.9.0.5 lladdr aa:bb:cc:dd:ee:fc dev d0 nud noarp extern_learn
neigh add 10.9.0.6 lladdr aa:bb:cc:dd:ee:fb dev d0 nud noarp
neigh add 10.9.0.10 lladdr aa:bb:cc:dd:ee:fa dev d0 nud reachable
neigh add fd00::2 lladdr aa:bb:cc:dd:ee:ff dev d0 nud permanent router
neigh add fd00::4 dev d0 nud failed
neigh add proxy 10.9.0.66 dev d0
"""
_SET_UP_OTHER = """
link set lo up
link set eth0 up
addr add 10.66.0.2/24 dev eth0
addr add fd66::2/64 dev eth0 nodad
route add default via 10.66.0.1
link add narrow mtu 1300 type veth peer name narrow1
link set narrow1 up
link set narrow up
addr add 10.67.0.1/16 dev narrow
"""
# An ICMP "fragmentation needed" teaches the near end a path MTU.
_PROVOKE = """
import socket
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
for _ in range(2):
    try:
        udp.sendto(bytes(1400), ("10.67.0.5", 9))
    except OSError:
        break
"""


def learn_path_mtu(near: Namespace) -> None:
    """Make the kernel remember that 10.67.0.5 takes 1300 bytes. Raises TimeoutError."""
    deadline = time.monotonic() + _DEADLINE_S
    while b"10.67.0.5" not in near.run("ip", "route", "show", "cache"):
        if time.monotonic() > deadline:
            raise TimeoutError("no path MTU was learned")
        near.run(sys.executable, "-c", _PROVOKE)


@contextmanager
def namespace() -> Iterator[Namespace]:
    """Make everything, and take it away again."""
    with namespaces("netlink", "netlink-b") as (near, far):
        for one in (near, far):
            one.run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
        near.set_up(_VETHS.format(other=far.name), "ip")
        far.set_up(_SET_UP_OTHER, "ip")
        near.set_up(_SET_UP, "ip")
        near.missing.extend(far.missing)
        near.settle()
        yield near


@contextmanager
def many_addresses(count: int) -> Iterator[Namespace]:
    """A namespace whose addresses do not fit into one message of the kernel."""
    with namespaces("netlink-c") as (made,):
        lines = (f"addr add 10.{at >> 8}.{at & 255}.1/32 dev lo" for at in range(count))
        batch = ("ip", "-n", made.name, "-b", "-")
        subprocess.run(batch, input="\n".join(lines).encode(), check=True)
        yield made
