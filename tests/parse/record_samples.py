"""Records what this machine's programs print of tests/parse/kernel_namespace.py.

    sudo .venv/bin/python tests/parse/record_samples.py

writes samples/<program>-<version>/netns/…, one file a command, with nothing changed.
"""

from __future__ import annotations

import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.parse.kernel_namespace import Made, namespace

SAMPLES = Path(__file__).parent / "samples"
COMMANDS = """
ip link|ip -d link|ip -j -d link|ip addr|ip -j addr|ip -j addr show dev d0
ip route|ip -j route|ip -6 route|ip -j -6 route|ip -d route
ip route show table all|ip -j route show table all|ip route get 1.2.3.4|ip -j route get 1.2.3.4
ip rule|ip -j rule|ip -6 rule|ip -j -6 rule
ip neigh|ip -j neigh|ip -s neigh|ip neigh show dev d0|ip -j neigh show proxy
tc filter show dev lxc1 ingress|tc filter show dev lxc1 egress
cat /proc/net/route|cat /proc/net/ipv6_route|cat /proc/net/arp|cat /proc/net/nf_conntrack
cat /sys/class/net/lxc1/iflink
conntrack -L|conntrack -L -o extended|conntrack -L -o extended,id
iptables-save|iptables-save -c|ip6tables-save -c
bpftool net show|bpftool -j net show|bpftool -j link show|bpftool -j -f link show
bpftool -j prog show
route -n|route -6 -n|arp -an|ifconfig -a
busybox ip addr|busybox ip route|busybox ip -6 route|busybox ip rule|busybox ip neigh
busybox route -n|busybox arp -an|busybox ifconfig -a
"""
_VERSION = {
    "ip": ("ip", "-V"),
    "tc": ("tc", "-V"),
    "conntrack": ("conntrack", "--version"),
    "iptables-save": ("iptables", "--version"),
    "ip6tables-save": ("iptables", "--version"),
    "bpftool": ("bpftool", "version"),
    "route": ("route", "--version"),
    "arp": ("route", "--version"),
    "ifconfig": ("route", "--version"),
    "busybox": ("busybox", "--help"),
    "ls": ("ls", "--version"),
}
_PACKAGE = {
    "ip": "iproute2",
    "tc": "iproute2",
    "iptables-save": "iptables",
    "ip6tables-save": "iptables",
    "route": "net-tools",
    "arp": "net-tools",
    "ifconfig": "net-tools",
    "ls": "coreutils",
}


def folder(program: str) -> Path:
    """`samples/<program>-<version>/netns`, where what `cat` prints is the kernel's."""
    if program == "cat":
        return SAMPLES / f"linux-{'.'.join(platform.release().split('.')[:2])}" / "netns"
    done = subprocess.run(_VERSION[program], capture_output=True, check=False)
    match = re.search(rb"[0-9]+(\.[0-9]+)+", done.stdout + done.stderr)
    version = match[0].decode() if match else "unknown"
    return SAMPLES / f"{_PACKAGE.get(program, program)}-{version}" / "netns"


def file_name(argv: list[str]) -> str:
    """A name for the file that says the command."""
    words = argv[1:] if argv[0] in ("cat", "busybox") else argv
    words = [word for word in words if not word.startswith(tempfile.gettempdir())]
    return re.sub(r"[^A-Za-z0-9.,]+", "-", " ".join(words)).strip("-")


def record(made: Made, argv: list[str]) -> None:
    """Write what one command prints into its file."""
    path = folder(argv[0]) / file_name(argv)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(made.near.run(*argv))


def main() -> None:
    """Record every command."""
    with namespace() as made:
        for line in made.near.missing:
            print("missing:", line, file=sys.stderr)
        commands = [c.split() for line in COMMANDS.strip().splitlines() for c in line.split("|")]
        commands += [["bpftool", "cgroup", "tree", str(made.cgroups)]]
        commands += [["ls", "-R", str(made.bpffs)]]
        for argv in commands:
            try:
                record(made, argv)
            except (OSError, subprocess.CalledProcessError) as error:
                print("not recorded:", " ".join(argv), error, file=sys.stderr)


if __name__ == "__main__":
    main()
