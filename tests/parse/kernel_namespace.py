"""Two network namespaces of our own, with one of everything that the parsers read.

Needs root and Linux. Used by test_parse_kernel.py and by record_samples.py. What the kernel of a
machine lacks (tcx before 6.6, say) is said in `missing`, not hidden.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.network_namespaces import Namespace, namespaces

_HERE = Path(__file__).parent

_SET_UP = """
link add lxc1 type veth peer name eth0 netns {other}
link add cilium_host type veth peer name cilium_net
link add cilium_vxlan type vxlan external dstport 8472
link add vx1 type vxlan id 42 remote 10.9.0.9 dstport 4789
link add br0 type bridge
link add d0 type veth peer name d1
link set d1 master br0
link set lo up
link set lxc1 up
link set cilium_host up
link set cilium_net up
link set cilium_vxlan up
link set br0 up
link set d1 up
link set d0 up
link set d0 alias an_alias
link property add dev d0 altname another-name
addr add 10.7.7.7/32 dev cilium_host scope link
addr add 10.8.0.1 peer 10.8.0.2/30 dev br0
addr add 10.9.0.1/24 brd + dev d0
addr add 10.9.0.7/24 dev d0 label d0:1
addr add 10.66.0.1/24 dev lxc1
addr add 10.66.0.3/24 dev lxc1
addr add fd00::1/64 dev d0 nodad
addr add fd00:1::1 peer fd00:1::2/64 dev d0 nodad
addr add fd66::1/64 dev lxc1 nodad
route add default via 10.9.0.2 mtu 1450 metric 7
route add 10.20.0.0/16 nexthop via 10.9.0.2 weight 1 nexthop via 10.9.0.3 dev d0 weight 5
route add blackhole 10.30.0.0/16 metric 5
route add unreachable 10.31.0.0/16
route add prohibit 10.32.0.0/16
route add throw 10.33.0.0/16
route add 10.40.0.0/16 via inet6 fd00::9 dev d0 src 10.9.0.1
route add 1.2.3.4 via 10.99.0.9 dev d0 onlink mtu lock 1400 advmss 1000
route add default dev d0 table 200 scope link
route add 10.50.0.0/16 dev d0 proto static table 2005
nexthop add id 5 via 10.9.0.2 dev d0
route add 10.60.0.0/16 nhid 5
-6 route add default via fd00::2 metric 55
-6 route add default dev d0 metric 66
-6 route add fd01::/32 from fd00::/64 via fd00::3
-6 route add blackhole fd02::/32
-6 route add fd03::/32 nexthop via fd00::4 nexthop via fd00::5 dev d0
-6 route add prohibit fd05::/32
rule add from 10.9.0.1 lookup 200 pref 8
rule add fwmark 0x200/0xf00 pref 9 lookup 2004
rule add fwmark 0x5 lookup 201 pref 11
rule add not from 10.9.0.0/16 to 10.7.0.0/16 iif lo oif d0 lookup 202 pref 12
rule add from all goto 32766 pref 13
rule add from all ipproto tcp sport 5 dport 80-90 unreachable pref 14
rule add from all uidrange 0-100 blackhole pref 15
rule add from all tos 0x10 prohibit pref 16
rule add from all lookup main suppress_prefixlength 0 pref 17
rule add l3mdev pref 18
rule add iif nosuch lookup 5 pref 19
rule add from all nop pref 20
rule add from all goto 555 pref 21
-6 rule add from fd00::/8 to fd01::/16 fwmark 0xf00/0xf00 lookup 2005 pref 22
neigh add 10.9.0.2 lladdr aa:bb:cc:dd:ee:ff dev d0
neigh add 10.9.0.3 lladdr aa:bb:cc:dd:ee:fe dev d0 nud stale router
neigh add 10.9.0.4 dev d0 nud failed
neigh add 10.9.0.5 lladdr aa:bb:cc:dd:ee:fc dev d0 nud noarp extern_learn
neigh add fd00::2 lladdr aa:bb:cc:dd:ee:ff dev d0 nud permanent router
neigh add proxy 10.9.0.66 dev d0
"""
_SET_UP_OTHER = """
link set lo up
link set eth0 up
addr add 10.66.0.2/24 dev eth0
addr add fd66::2/64 dev eth0 nodad
route add default via 10.66.0.1
"""
_IPTABLES = """
iptables -A OUTPUT -m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT
ip6tables -A OUTPUT -m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT
iptables -t nat -A OUTPUT -d 10.66.0.2 -p tcp --dport 8081 -j DNAT --to-destination 10.66.0.2:8080
iptables -t nat -A OUTPUT -d 10.66.0.2 -p tcp --dport 8082 -j REDIRECT --to-ports 9000-9010
iptables -t nat -A POSTROUTING -d 10.66.0.2 -p tcp --dport 8080 -j SNAT --to-source 10.66.0.3
iptables -t nat -A POSTROUTING -d 10.66.0.2 -p icmp -j SNAT --to-source 10.66.0.3
iptables -t nat -A POSTROUTING -s 10.0.0.0/8 -p tcp -m mark ! --mark 0x4000/0x4000 -j MASQUERADE
iptables -t raw -A OUTPUT -p udp --dport 5353 -j CT --zone-orig 5
iptables -t raw -A OUTPUT -p udp --dport 5354 -j CT --zone 6
iptables -t mangle -A OUTPUT -p tcp -j CONNMARK --set-xmark 0x200/0xff00
iptables -A INPUT -p tcp ! --dport 80 ! --sport 1024:65535 --syn -j REJECT --reject-with tcp-reset
iptables -A INPUT -p udp -m multiport ! --ports 53 -m limit --limit 3/min -j ACCEPT
iptables -A INPUT -p tcp -m mark --mark 0x5 -m multiport --dports 80,443,1000:2000 -j DROP
iptables -A INPUT -m statistic --mode random --probability 0.5 -m state --state INVALID
iptables -N side
iptables -A INPUT -s 10.0.0.0/255.0.255.0 ! -i lxc+ -g side
iptables -A INPUT -p 132 -m mark ! --mark 0x0/0x4000
iptables -A INPUT -m addrtype ! --dst-type LOCAL --src-type UNICAST
iptables -A INPUT -m conntrack ! --ctstate DNAT --ctdir ORIGINAL -m mark --mark 1 -m mark --mark 2
iptables -A INPUT -p icmp --icmp-type 8 -m comment --comment plain
ip6tables -A INPUT -s fd00::/8 ! -d fd66::1 -p ipv6-icmp -m icmp6 --icmpv6-type 128 -j ACCEPT
"""
# The far end: echoes UDP and accepts TCP until its stdin ends.
_SERVER = """
import socket, sys, threading
kept = []
for family, host in ((socket.AF_INET, "10.66.0.2"), (socket.AF_INET6, "fd66::2")):
    tcp = socket.socket(family); tcp.bind((host, 8080)); tcp.listen(); kept.append(tcp)
    udp = socket.socket(family, socket.SOCK_DGRAM); udp.bind((host, 5555)); kept.append(udp)
    def echo(udp=udp):
        while True:
            data, peer = udp.recvfrom(99)
            udp.sendto(data, peer)
    threading.Thread(target=echo, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""
# The near end: one flow of each protocol. Raw sockets stand in for ping and for GRE.
_CLIENT = """
import socket, struct, sys
def checksum(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total >> 16) + (total & 0xFFFF)
    return ~total & 0xFFFF
kept = []
for host, port in (("10.66.0.2", 8081), ("fd66::2", 8080)):
    kept.append(socket.create_connection((host, port), 5))
for family, host, port in ((2, "10.66.0.2", 5555), (10, "fd66::2", 5555)):
    udp = socket.socket(family, socket.SOCK_DGRAM); udp.settimeout(5)
    udp.sendto(b"x", (host, port)); udp.recvfrom(9); kept.append(udp)
for port in (5353, 5354):
    socket.socket(2, socket.SOCK_DGRAM).sendto(b"x", ("10.66.0.2", port))
echo = struct.pack(">BBHHH", 8, 0, 0, 777, 1)
echo = struct.pack(">BBHHH", 8, 0, checksum(echo), 777, 1)
icmp = socket.socket(2, socket.SOCK_RAW, 1); icmp.settimeout(5)
icmp.sendto(echo, ("10.66.0.2", 0)); icmp.recv(99)
icmp6 = socket.socket(10, socket.SOCK_RAW, 58)
icmp6.sendto(struct.pack(">BBHHH", 128, 0, 0, 778, 1), ("fd66::2", 0))
gre = socket.socket(2, socket.SOCK_RAW, 47)
gre.sendto(struct.pack(">HHHHI", 0x2001, 0x880B, 0, 55, 1), ("10.66.0.2", 0))
socket.socket(2, socket.SOCK_RAW, 99).sendto(b"abcd", ("10.66.0.2", 0))
print("ready", flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class Made:
    """The namespace, and where file systems of its objects are mounted."""

    near: Namespace
    bpffs: Path
    cgroups: Path


@contextmanager
def namespace() -> Iterator[Made]:
    """Make everything, and take it away again."""
    folder = Path(tempfile.mkdtemp(prefix="ebpfnet-parse-"))
    bpffs, cgroups = folder / "bpf", folder / "cgroups"
    children: list[subprocess.Popen[bytes]] = []
    try:
        with namespaces("parse", "parse-b") as (near, far):
            made = Made(near, bpffs, cgroups)
            near.set_up(_SET_UP.format(other=far.name), "ip")
            far.set_up(_SET_UP_OTHER, "ip")
            near.set_up(_IPTABLES)
            near.tried("sysctl", "-q", "-w", "net.netfilter.nf_conntrack_acct=1")
            near.settle()
            children = [_child(far, _SERVER), _child(near, _CLIENT)]
            _attach(made)
            yield made
    finally:
        for child in children:
            child.send_signal(signal.SIGTERM)
            child.communicate(timeout=10)
        for mount in (bpffs, cgroups):
            with suppress(OSError):
                (mount / "ebpfnet-parse").rmdir()
            subprocess.run(("umount", str(mount)), capture_output=True, check=False)
        shutil.rmtree(folder)


def _child(where: Namespace, program: str) -> subprocess.Popen[bytes]:
    argv = ("ip", "netns", "exec", where.name, sys.executable, "-c", program)
    child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    if child.stdout.readline() != b"ready\n":
        where.missing.append("a peer for conntrack did not start")
    return child


def _attach(made: Made) -> None:
    near = made.near
    for mount, kind in ((made.bpffs, "bpf"), (made.cgroups, "cgroup2")):
        mount.mkdir()
        done = subprocess.run(("mount", "-t", kind, kind, str(mount)), capture_output=True)
        if done.returncode:
            near.missing.append(f"mount {kind}: {done.stderr.decode().strip()}")
            return
    cgroup = made.cgroups / "ebpfnet-parse"
    cgroup.mkdir(exist_ok=True)
    script = str(_HERE / "bpf/bpf_objects.py")
    near.tried(sys.executable, script, str(made.bpffs), str(cgroup), "cilium_host", "lxc1")
    cls, xdp = str(made.bpffs / "pinned" / "cls"), str(made.bpffs / "pinned" / "xdp")
    near.tried("tc", "qdisc", "add", "dev", "lxc1", "clsact")
    on = ("tc", "filter", "add", "dev", "lxc1")
    near.tried(*on, "ingress", "pref", "1", "handle", "1", "bpf", "da", "pinned", cls)
    near.tried(
        *(*on, "ingress", "pref", "5", "protocol", "ip", "bpf", "pinned", cls),
        *("classid", "1:1"),
    )
    near.tried(*on, "ingress", "pref", "7", "bpf", "da", "bytecode", "1,6 0 0 4294967295,")
    near.tried(*on, "egress", "pref", "3", "bpf", "da", "pinned", cls)
    near.tried("ip", "link", "set", "dev", "cilium_net", "xdpgeneric", "pinned", xdp)
