"""What the lab needs on the machine: Debian's packages, and Kubernetes built once and cached.

Kubernetes comes from Debian's source package (1.20.2 in full, though the binary package ships
kubectl alone); measured here: 4 min on two cores. The result lies in the cache folder, which
outlives checkouts.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.lab.config import BINARIES, CACHE, VERSION

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
    "openssl": "openssl",
    "debootstrap": "debootstrap",
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
}
"""A program or file that must be there, and the package it comes from."""

BUILD_PACKAGES = ("golang-1.19-go", "rsync", "jq", "dpkg-dev", "make", "gcc")

_SOURCES = """Types: deb-src
URIs: http://deb.debian.org/debian
Suites: bookworm
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""
_SOURCES_FILE = Path("/etc/apt/sources.list.d/ebpfnet-lab-src.sources")


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
    say(f"building Kubernetes {VERSION}, once a machine (4 to 10 minutes)")
    if not _SOURCES_FILE.exists():
        _SOURCES_FILE.write_text(_SOURCES)
    _apt("update", "-q")
    _apt("install", "-y", "-q", "--no-install-recommends", *BUILD_PACKAGES)
    work = CACHE / "build"
    shutil.rmtree(work, ignore_errors=True)
    tree = work / "gopath/src/k8s.io/kubernetes"
    tree.parent.mkdir(parents=True)
    log = CACHE / "build.log"
    with log.open("wb") as out:
        _logged(["apt-get", "source", "-q", "kubernetes"], work, out, {})
        next(work.glob("kubernetes-*/")).rename(tree)
        _fit_to_go_1_18(tree)
        go = {
            "PATH": f"/usr/lib/go-1.19/bin:{os.environ['PATH']}",
            "GOPATH": str(work / "gopath"),
            "GOCACHE": str(work / "gocache"),
            "GO111MODULE": "off",
            "CGO_ENABLED": "0",
            "KUBE_GIT_VERSION": f"v{VERSION}",
            "KUBE_GIT_MAJOR": "1",
            "KUBE_GIT_MINOR": "20",
            "KUBE_GIT_COMMIT": "debian",
            "KUBE_GIT_TREE_STATE": "clean",
        }
        what = " ".join(f"cmd/{name}" for name in PROGRAMS)
        _logged(["make", f"WHAT={what}"], tree, out, go)
    say(f"built in {time.monotonic() - begun:.0f} s, log: {log}")
    ready = CACHE / f"{BINARIES.name}.new"
    shutil.rmtree(ready, ignore_errors=True)
    ready.mkdir()
    for name in PROGRAMS:
        shutil.copy(tree / "_output/bin" / name, ready / name)
    shutil.rmtree(BINARIES, ignore_errors=True)
    ready.rename(BINARIES)
    shutil.rmtree(work, ignore_errors=True)


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


def _logged(argv: list[str], cwd: Path, out: object, env: dict[str, str]) -> None:
    done = subprocess.run(
        argv, cwd=cwd, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **env}, check=False
    )  # type: ignore[call-overload]
    if done.returncode:
        raise RuntimeError(f"{argv[0]} failed: see {CACHE / 'build.log'}")


def _apt(*words: str) -> None:
    argv = ["apt-get", "-o", "DPkg::Lock::Timeout=300", *words]
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(argv, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()[-500:]}")
