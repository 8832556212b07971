"""What the lab needs on the machine: Debian's packages, and Kubernetes built once and cached.

Kubernetes comes from Debian 12's source package (1.20.2 in full, though the binary package ships
kubectl alone). It needs the Go of Debian 12, so it is built in a Debian 12 of its own, whichever
Debian the machine runs; the programs are static, so they run on any. Measured here: 6 min on two
cores. The result lies in the cache folder, which outlives checkouts.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.lab.cluster.config import BINARIES, CACHE, VERSION
from tests.lab.cluster.image import debian
from tests.lab.cluster.image.chroot import Tree
from tests.render.html import mermaid

PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")

PACKAGES = {
    "/usr/bin/python3": "python3",
    "etcd": "etcd-server",
    "ipset": "ipset",
    "containerd": "containerd",
    "runc": "runc",
    "ip": "iproute2",
    "bpftool": "bpftool",
    "conntrack": "conntrack",
    "iptables": "iptables",
    "clang": "clang",
    "llvm-strip": "llvm",
    "openssl": "openssl",
    "debootstrap": "debootstrap",
    "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
    "gcc": "gcc",
    "/usr/include/stdio.h": "libc6-dev",
    "sysctl": "procps",
    "/usr/include/bpf/bpf_helpers.h": "libbpf-dev",
    "/usr/lib/cni/loopback": "containernetworking-plugins",
    "nc": "netcat-openbsd",
    "ping": "iputils-ping",
    "curl": "curl",
    # Not for the lab: programs whose output, or whose shell, other tests need.
    "arp": "net-tools",
    "busybox": "busybox",
    "mksh": "mksh",
    "tcpdump": "tcpdump",
    "nft": "nftables",
    "zsh": "zsh",
    "fish": "fish",
    "/usr/share/bash-completion/bash_completion": "bash-completion",
    "qemu-system-x86_64": "qemu-system-x86",
    "chromium": "chromium",
    "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf": "fonts-dejavu-core",
    "dot": "graphviz",
    "pdftotext": "poppler-utils",
}
"""A program or file that must be there, and the package it comes from."""

_BUILD_PACKAGES = "ca-certificates dpkg-dev gcc golang-1.19-go jq libc6-dev make procps rsync"
_SOURCE = "/go/src/k8s.io/kubernetes"
"""Where its source lies in the Debian it is built in; GOPATH is /go."""
_GET_SOURCE = f"""exec >/build.log 2>&1
apt-get update -q
apt-get install -y -q --no-install-recommends {_BUILD_PACKAGES}
mkdir -p /fetched {Path(_SOURCE).parent}
cd /fetched && apt-get source -q kubernetes
mv /fetched/kubernetes-*/ {_SOURCE}
"""
_MAKE = f"""exec >>/build.log 2>&1
make WHAT='{" ".join(f"cmd/{name}" for name in PROGRAMS)}'
mkdir /built && cd _output/bin && cp {" ".join(PROGRAMS)} /built/
"""
_GO = {
    "DEBIAN_FRONTEND": "noninteractive",
    "PATH": "/usr/lib/go-1.19/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "GOPATH": "/go",
    "GOCACHE": "/go/cache",
    "GO111MODULE": "off",
    "CGO_ENABLED": "0",
    "KUBE_GIT_VERSION": f"v{VERSION}",
    "KUBE_GIT_MAJOR": "1",
    "KUBE_GIT_MINOR": "20",
    "KUBE_GIT_COMMIT": "debian",
    "KUBE_GIT_TREE_STATE": "clean",
}


def say(text: str) -> None:
    """Progress, on stderr."""
    print(f"lab: {text}", file=sys.stderr, flush=True)


def packages() -> None:
    """Install what is missing."""
    missing = sorted(
        {
            package
            for need, package in PACKAGES.items()
            if not (Path(need).exists() if need.startswith("/") else shutil.which(need))
        }
    )
    if missing:
        begun = time.monotonic()
        _apt("update", "-q")
        _apt("install", "-y", "-q", "--no-install-recommends", *missing)
        say(f"installed {' '.join(missing)} in {time.monotonic() - begun:.0f} s")
    try:
        mermaid.fetch()
    except RuntimeError as error:
        say(f"tests of -o mermaid are skipped: {error}")


def kubernetes() -> None:
    """Build Kubernetes if the cache does not have it."""
    if all((BINARIES / name).exists() for name in PROGRAMS):
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if all((BINARIES / name).exists() for name in PROGRAMS):
            return
        _build()


def _build() -> None:
    begun = time.monotonic()
    say(f"building Kubernetes {VERSION}, once a machine (5 to 10 minutes)")
    work = CACHE / "build"
    shutil.rmtree(work, ignore_errors=True)
    tree = Tree(work / "root")
    source = tree.root / _SOURCE.lstrip("/")
    debian.bootstrap(tree.root)
    listed = tree.root / "etc/apt/sources.list"
    listed.write_text(f"deb-src {debian.mirror()} {debian.SUITE} main\n{listed.read_text()}")
    try:
        tree.run(f"set -e\n{_GET_SOURCE}", _GO, "/")
        _fit_to_go_1_18(source)
        tree.run(f"set -e\n{_MAKE}", _GO, _SOURCE)
    except RuntimeError as error:
        raise RuntimeError(f"Kubernetes was not built: see {tree.root}/build.log") from error
    shutil.rmtree(BINARIES, ignore_errors=True)
    (tree.root / "built").rename(BINARIES)
    shutil.rmtree(work, ignore_errors=True)
    say(f"built Kubernetes in {time.monotonic() - begun:.0f} s")


def _fit_to_go_1_18(tree: Path) -> None:
    """Let the vendored reflect2 1.0.1 run under Go 1.18 and later.

    Since Go 1.18, reflect.mapiterinit takes the iterator from its caller instead of making one
    (Go issue 46293); without this the API server dies when it encodes a custom resource.
    """
    folder = tree / "vendor/github.com/modern-go/reflect2"
    for name, old, new in (
        (
            "unsafe_link.go",
            "func mapiterinit(rtype unsafe.Pointer, m unsafe.Pointer) *hiter",
            "func mapiterinit(rtype unsafe.Pointer, m unsafe.Pointer, it *hiter)",
        ),
        # The rest of runtime.hiter: six pointers, then four words.
        (
            "unsafe_link.go",
            "\t// rest fields are ignored",
            "\tpointers [6]unsafe.Pointer\n\twords [4]uintptr",
        ),
        (
            "unsafe_map.go",
            "\treturn &UnsafeMapIterator{\n\t\thiter:      "
            "mapiterinit(type2.rtype, *(*unsafe.Pointer)(obj)),",
            "\tit := &hiter{}\n\tmapiterinit(type2.rtype, *(*unsafe.Pointer)(obj), it)\n"
            "\treturn &UnsafeMapIterator{\n\t\thiter:      it,",
        ),
    ):
        text = (folder / name).read_text()
        if old not in text:
            raise RuntimeError(f"{folder / name} is not the version that this patch is for")
        (folder / name).write_text(text.replace(old, new))


def _apt(*words: str) -> None:
    argv = ["apt-get", "-o", "DPkg::Lock::Timeout=300", *words]
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(argv, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()[-500:]}")
