"""Boot a kernel in a virtual machine, without KVM, and hear what its checks told."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.kernels import debian, initramfs
from tests.kernels.debian import Unavailable

QEMU = "qemu-system-x86_64"
_LONGEST_S = 1800
_CPU = "Nehalem,+rdrand,+la57"
"""With five levels of page tables, as servers have: the kernel's addresses begin lower."""
_KERNEL = (
    "console=ttyS0 random.trust_cpu=on panic=-1 loglevel=4 mitigations=off tsc=reliable "
    "no_timer_check"
)
"""Its command line."""
MODULES = (
    "veth", "dummy", "vxlan", "geneve", "wireguard",
    "xfrm_user", "esp4", "esp6", "authenc", "echainiv", "seqiv", "cbc", "aes_generic",
    "sha256_generic", "sha512_generic", "hmac", "jitterentropy_rng", "drbg",
    "gcm", "ghash_generic", "ctr", "crypto_null",
    "nf_conntrack", "nf_conntrack_netlink", "nf_tables", "nft_compat", "nft_ct", "nft_counter",
    "xt_mark", "xt_tcpudp", "xt_conntrack", "xt_comment", "xt_esp",
    "ip_tables", "ip6_tables", "iptable_filter", "iptable_raw", "iptable_mangle",
    "sch_ingress", "act_mirred", "act_tunnel_key", "act_skbedit", "act_gact", "cls_flower",
    "sch_netem", "sch_fq", "sch_tbf",
    "nf_nat", "nft_chain_nat", "nft_masq", "cls_bpf", "ipip", "8021q",
)  # fmt: skip
"""What is loaded where the kernel has it as a module."""

CHECKS = tuple(
    f"tests.kernels.inside.{name}" for name in ("wireguard", "ipsec", "tunnels", "devices")
)
"""Modules of checks for `path`."""


@dataclass(frozen=True, slots=True)
class Report:
    """What the checks inside told.

    Attributes:
        told: of each check by name: `error`, "" where it held; `seconds`; `told`, what it returned.
        kernel: `uname -r`.
        seconds: from the start to the end of the virtual machine.
        console: the kernel's console.
    """

    told: dict[str, dict[str, Any]]
    kernel: str
    seconds: float
    console: str


def boot(
    series: str, checks: Sequence[str] = CHECKS, files: Mapping[str, bytes] = MappingProxyType({})
) -> Report:
    """Boot a kernel, run every check and power it off.

    Args:
        series: of debian.SUITES.
        checks: names of modules; those below tests.kernels.inside are there.
        files: contents of what else these need, by path.

    Raises:
        Unavailable: qemu or the kernel is missing here.
        RuntimeError: the machine did not come to its end; the message has its console.
    """
    if shutil.which(QEMU) is None:
        raise Unavailable(f"no {QEMU} (Debian's qemu-system-x86)")
    kernel = debian.kernel(series)
    with tempfile.TemporaryDirectory(prefix="ebpfnet-kernel-") as folder:
        packed, told, console = (Path(folder) / name for name in ("initramfs", "told", "console"))
        packed.write_bytes(initramfs.build(kernel, MODULES, checks, files))
        argv = (
            QEMU, "-M", "q35", "-accel", "tcg", "-cpu", _CPU, "-smp", "1", "-m", "768",
            "-nodefaults", "-display", "none", "-no-reboot",
            "-kernel", str(kernel.image), "-initrd", str(packed),
            "-append", _KERNEL,
            "-serial", f"file:{console}", "-serial", f"file:{told}",
        )  # fmt: skip
        for last in (False, True):
            begun = time.monotonic()
            try:
                subprocess.run(argv, capture_output=True, text=True, check=True, timeout=_LONGEST_S)
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
                said = console.read_text(errors="replace")[-3000:] if console.exists() else ""
                raise RuntimeError(f"{error}\n{error.stderr}\n{said}") from None
            seconds = time.monotonic() - begun
            lines = [json.loads(line) for line in told.read_text().splitlines()]
            said = console.read_text(errors="replace")
            if lines and "end" in lines[-1]:
                break
            # An emulated processor sometimes panics while it unpacks the initramfs, before a check.
            if lines or last:
                raise RuntimeError(f"linux {series} did not come to its end:\n{said[-3000:]}")
            print(f"linux {series} panicked before the first check, and is booted again:")
            print(said[-3000:])
    by_name = {line["name"]: line for line in lines[:-1]}
    return Report(by_name, lines[-1]["end"], seconds, said)
