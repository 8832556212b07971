"""Counters that explain losses: the numbers of `ip -s link`, conntrack(8) and /proc."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.model.kernel import Counter
from kubectl_ebpfnet.model.protocol.questions import NodeRequest
from kubectl_ebpfnet.node import counters as node_counters
from kubectl_ebpfnet.node.host import netns
from tests.network_namespaces import Namespace
from tests.node.netlink.conntrack_netns import WHY_NOT, world

kernel_tests = [
    pytest.mark.kernel,
    pytest.mark.skipif(bool(WHY_NOT), reason=f"nothing is counted here: {WHY_NOT}"),
]
REQUEST = NodeRequest(1, ("ebpfnet-node", "counters"))
_DEADLINE_S = 20.0
_LOST_FRAMES = 7


@pytest.fixture(scope="module")
def made() -> Iterator[Namespace]:
    with world() as (near, far):
        assert not near.missing
        lose(near, far)
        yield near


def lose(near: Namespace, far: Namespace) -> None:
    """Lose some packets, each for a reason of its own."""
    with netns.inside(far.path):
        frame = bytes.fromhex(mac(near)) + b"\2\0\0\0\0\1\x88\xb5" + bytes(50)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("far", 0))
            for _ in range(_LOST_FRAMES):  # nobody handles its type: rx_dropped
                raw.send(frame)
    with netns.inside(near.path):
        for family, host in ((socket.AF_INET, "10.66.0.1"), (socket.AF_INET6, "fd66::1")):
            with socket.socket(family, socket.SOCK_DGRAM) as udp:
                udp.sendto(b"x", (host, 9))  # NoPorts, OutDestUnreachs
            with socket.socket(family, socket.SOCK_STREAM) as tcp, pytest.raises(OSError):  # noqa: PT011
                tcp.connect((host, 9))  # AttemptFails, OutRsts
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, pytest.raises(OSError):  # noqa: PT011
            udp.sendto(b"x", ("203.0.113.1", 9))  # OutNoRoutes
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
            raw.sendto(bytes(20), ("10.66.0.1", 0))  # no TCP header: invalid for conntrack


def mac(made: Namespace) -> str:
    text = subprocess.run(
        ("ip", "-j", "-n", made.name, "link", "show", "near"),
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    return str(json.loads(text)[0]["address"]).replace(":", "")


def ask(made: Namespace) -> list[Counter]:
    with netns.inside(made.path):
        return list(node_counters.counters(REQUEST))


def settled(made: Namespace, theirs: Callable[[], object]) -> tuple[list[Counter], object]:
    """Ours and theirs of a moment in which nothing was counted."""
    deadline = time.monotonic() + _DEADLINE_S
    while True:
        before, ours, after = theirs(), ask(made), theirs()
        if before == after:
            return ours, after
        assert time.monotonic() < deadline, "the counters do not come to rest"


class TestKernel:
    pytestmark = kernel_tests

    def test_devices_are_as_ip_shows_them(self, made: Namespace) -> None:
        def shown() -> dict[tuple[str, str], int]:
            values = {}
            for link in json.loads(made.run("ip", "-j", "-s", "-s", "link")):
                for way, stats in link["stats64"].items():
                    for name, value in stats.items():
                        own = name if name in ("multicast", "collisions") else f"{way}_{name}"
                        values[link["ifname"], own] = value
            return values

        ours, theirs = settled(made, shown)
        assert isinstance(theirs, dict)
        told = {(one.device, one.name): one.value for one in ours if one.group == "device"}
        for key, value in told.items():
            # ip calls what is no standard counter by other words, or not at all
            assert theirs.get(key, value) == value, key
        for (device, name), value in theirs.items():
            if name not in ("multicast", "tx_carrier_changes") and "compressed" not in name:
                assert told.get((device, name), 0) == value, (device, name)
        assert told["near", "rx_dropped"] == _LOST_FRAMES
        assert told["lo", "rx_packets"] > 0

    @pytest.mark.parametrize("file", ["snmp", "netstat"])
    def test_protocols_are_as_proc_tells(self, made: Namespace, file: str) -> None:
        def told_by_proc() -> dict[str, int]:
            lines = made.run("cat", f"/proc/net/{file}").decode().splitlines()
            pairs = zip(lines[::2], lines[1::2], strict=True)
            return {
                f"{names.split(':')[0]}.{name}": int(value)
                for names, values in pairs
                for name, value in zip(names.split()[1:], values.split()[1:], strict=True)
            }

        ours, theirs = settled(made, told_by_proc)
        assert isinstance(theirs, dict)
        told = {one.name: one.value for one in ours if one.group == file and "." in one.name}
        wanted = node_counters._WANTED[file]
        assert told == {k: v for k, v in theirs.items() if k in wanted and v}
        if file == "snmp":
            assert set(told) >= {
                "Udp.NoPorts", "Icmp.OutDestUnreachs", "Tcp.AttemptFails", "Tcp.OutRsts",
                "Ip.OutNoRoutes",
            }  # fmt: skip

    def test_ipv6_is_as_proc_tells(self, made: Namespace) -> None:
        def told_by_proc() -> dict[str, int]:
            lines = made.run("cat", "/proc/net/snmp6").decode().splitlines()
            return {name: int(value) for name, value in (line.split() for line in lines)}

        ours, theirs = settled(made, told_by_proc)
        assert isinstance(theirs, dict)
        told = {one.name: one.value for one in ours if one.group == "snmp" and "." not in one.name}
        wanted = node_counters._WANTED["snmp6"]
        assert told == {k: v for k, v in theirs.items() if k in wanted and v}
        assert told["Udp6NoPorts"] == 1

    def test_conntrack_is_as_conntrack_tells(self, made: Namespace) -> None:
        words = {"clashres": "clash_resolve", "icmp_error": "error"}

        def told_by_tool() -> dict[str, int]:
            total: dict[str, int] = {}
            for line in made.run("conntrack", "-S").decode().splitlines():
                for name, value in (word.split("=") for word in line.split()):
                    total[name] = total.get(name, 0) + int(value)
            total["nf_conntrack_count"] = int(made.run("conntrack", "-C"))
            return total

        ours, theirs = settled(made, told_by_tool)
        assert isinstance(theirs, dict)
        told = {one.name: one.value for one in ours if one.group == "conntrack"}
        most = made.run("sysctl", "-n", "net.netfilter.nf_conntrack_max")
        assert told.pop("nf_conntrack_max") == int(most)
        assert told.pop("nf_conntrack_count") == theirs["nf_conntrack_count"] > 0
        assert told == {
            name: value
            for name in node_counters._CONNTRACK
            if (value := theirs[words.get(name, name)])
        }
        assert told["invalid"] >= 1

    def test_softnet_is_the_sum_of_all_cpus(self, made: Namespace) -> None:
        def processed() -> int:
            rows = Path("/proc/net/softnet_stat").read_text().splitlines()
            return sum(int(row.split()[0], 16) for row in rows)

        before, ours, after = processed(), ask(made), processed()
        (value,) = (one.value for one in ours if (one.group, one.name) == ("softnet", "processed"))
        assert before <= value <= after

    def test_a_thread_reads_its_own_namespace(self, made: Namespace) -> None:
        seen: list[Counter] = []
        thread = threading.Thread(target=lambda: seen.extend(ask(made)))
        thread.start()
        thread.join(30)
        assert {one.device for one in seen} == {"", "lo", "near"}
        assert [one for one in seen if one.group == "snmp"] == [
            one for one in ask(made) if one.group == "snmp"
        ]


SNMP = "Ip: Forwarding InReceives InDiscards New\nIp: 1 900 3 5\nUdp: NoPorts\nUdp: 0\n"
SOFTNET = "00000010 00000001 00000002\n00000020 00000000 00000001\n"  # before Linux 3.x had more


@pytest.fixture
def proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A /proc of a kernel without IPv6 and without conntrack, and no devices."""
    monkeypatch.setattr(node_counters, "_NET", tmp_path)
    monkeypatch.setattr(node_counters, "_SYSCTL", tmp_path / "none")
    monkeypatch.setattr(node_counters, "dump", lambda *_: [])
    (tmp_path / "snmp").write_text(SNMP)
    (tmp_path / "netstat").write_text("TcpExt: ListenDrops\nTcpExt: 4\n")
    (tmp_path / "softnet_stat").write_text(SOFTNET)
    return tmp_path


def test_what_a_kernel_lacks_is_left_out(proc: Path) -> None:
    assert [(one.group, one.name, one.value) for one in node_counters.counters(REQUEST)] == [
        ("snmp", "Ip.InDiscards", 3),
        ("netstat", "TcpExt.ListenDrops", 4),
        ("softnet", "processed", 0x30),
        ("softnet", "dropped", 1),
        ("softnet", "time_squeeze", 3),
    ]


def test_statistics_of_all_cpus_are_summed(proc: Path) -> None:
    (proc / "stat").mkdir()
    (proc / "stat" / "nf_conntrack").write_text(
        "entries  found new invalid drop early_drop\n"
        "0000000f 00000001 00000000 0000000a 00000001 00000000\n"
        "0000000f 00000001 00000000 00000001 00000000 00000000\n"
    )
    told = [one for one in node_counters.counters(REQUEST) if one.group == "conntrack"]
    assert [(one.name, one.value) for one in told] == [("invalid", 11), ("drop", 1)]


def test_a_file_that_cannot_be_read_is_an_error(proc: Path) -> None:
    (proc / "netstat").unlink()
    with pytest.raises(KernelError, match="netstat: No such file"):
        list(node_counters.counters(REQUEST))
