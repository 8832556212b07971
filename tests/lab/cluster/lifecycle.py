"""Bringing the lab up and taking it away, in one order and its reverse."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.lab.cluster import build
from tests.lab.cluster.agent.daemon import ANSWERS
from tests.lab.cluster.build import say
from tests.lab.cluster.config import (
    ADMIN_CONFIG,
    BINARIES,
    CACHE,
    HERE,
    LB_ADDRESSES,
    NODES,
    POD_CIDR,
    STATE,
    WORLD_NETNS,
)
from tests.lab.cluster.control import control_plane, manifests
from tests.lab.cluster.datapath import bpf, sync
from tests.lab.cluster.image import node_image
from tests.lab.cluster.kubectl import apply, get, kubectl
from tests.lab.cluster.nodes import network, node
from tests.lab.cluster.processes import alive, run, start, stop_all, wait_for

READY = STATE / "up"
NODE_NAMES = tuple(one.name for one in NODES)
DAEMONS = (
    "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "world", "sync",
    *NODE_NAMES,
)  # fmt: skip


def is_up() -> bool:
    """Whether a whole lab runs."""
    return READY.exists() and all(alive(name) for name in DAEMONS)


def up() -> None:
    """Bring the lab up; a half-dead one is taken down first. One that is up is given the node pod's
    image of this checkout, if it has another's.

    Raises:
        RuntimeError: a command failed; its words tell.
        TimeoutError: something did not come; the logs are in STATE/logs and STATE/NODE.
    """
    if is_up() and node.has_node_image():
        say("is up already")
        return
    with _alone():
        if is_up():
            say("is up already; gets the node image of this checkout")
            node.load_node_image(NODES)
            return
        build.packages()
        build.kubernetes()
        node_image.base()
        if STATE.exists() or network.left():
            say("taking what is left of an earlier one down")
            _down()
        _up()


def down() -> None:
    """Take everything away: pods' processes, daemons, mounts, links, cgroups, folders.

    Raises:
        RuntimeError: something of ours is still there afterwards.
    """
    with _alone():
        _down()


@contextmanager
def _alone() -> Iterator[None]:
    """One `up` or `down` at a time on a machine. The lock lies in the cache, which stays."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lab.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _up() -> None:
    STATE.mkdir(parents=True, mode=0o755)
    (STATE / "forms.json").write_text(json.dumps(manifests.forms()))
    steps = (
        ("network", network.up),
        ("BPF programs", bpf.compile_programs),
        ("replay agent's client", _agent_client),
        ("control plane", control_plane.up),
        ("nodes", _nodes),
        ("workloads and the node image", _workloads_and_image),
    )
    for name, step in steps:
        begun = time.monotonic()
        step()
        say(f"{name}: {time.monotonic() - begun:.1f} s")
    READY.touch()


def _agent_client() -> None:
    folder = STATE / "agent-bin"
    folder.mkdir()
    run(["gcc", "-static", "-O2", "-Wall", "-Werror", "-o", str(folder / "cilium-dbg"),
         str(HERE / "agent/cilium-dbg.c")])  # fmt: skip
    for name in ("cilium", "hubble"):
        (folder / name).symlink_to("cilium-dbg")


def _nodes() -> None:
    for one in NODES:
        _kube_proxy(one.name, one.state)
        node.up(one)
    _definitions()
    node.load_images(NODES)
    wait_for(_all_nodes_ready, "the Ready nodes", 90)


def _kube_proxy(name: str, state: Path) -> None:
    state.mkdir(parents=True, exist_ok=True)
    script = state / "kube-proxy.sh"
    script.write_text(
        f"#!/bin/sh\nexec {BINARIES}/kube-proxy --kubeconfig={ADMIN_CONFIG} "
        f"--hostname-override={name} --cluster-cidr={POD_CIDR} --proxy-mode=iptables "
        "--conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0 "
        "--conntrack-tcp-timeout-close-wait=0 --iptables-min-sync-period=100ms\n"
    )
    script.chmod(0o755)


def _definitions() -> None:
    """Cilium's kinds, its nodes and its settings; while the nodes start."""
    definitions = manifests.definitions()
    apply(definitions)
    names = [f"crd/{one['metadata']['name']}" for one in definitions]
    kubectl("wait", "--for=condition=established", *names, "--timeout=30s")
    wait_for(lambda: _can_apply(manifests.cilium_objects()), "Cilium's object kinds", 30)


def _can_apply(objects: list[manifests.Manifest]) -> bool:
    try:
        apply(objects)
    except RuntimeError:
        return False
    return True


def _all_nodes_ready() -> bool:
    found = get("nodes")
    return sorted(one["metadata"]["name"] for one in found if _is_ready(one)) == sorted(NODE_NAMES)


def _workloads_and_image() -> None:
    """Side by side: the one waits for the network and pods, the other for the disk."""
    with ThreadPoolExecutor(1) as side:
        image = side.submit(node.load_node_image, NODES)
        _workloads()
        image.result()


def _workloads() -> None:
    apply([*manifests.rights(), manifests.agents(), *manifests.workloads()])
    root = {"PYTHONPATH": str(HERE.parents[2])}
    start("sync", [sys.executable, "-m", "tests.lab.cluster.datapath.sync"], root)
    wait_for(_all_running, "the lab's pods", 120)
    wait_for(_in_step, "Cilium's objects", 30)
    wait_for(_balanced, "the load-balancers' rules", 30)


def _all_running() -> bool:
    pods = [p for p in get("pods", "-A") if p["metadata"]["name"] != "pending"]
    agents = [p for p in pods if p["metadata"].get("labels", {}).get("k8s-app") == "cilium"]
    return len(agents) == len(NODES) and len(pods) >= len(NODES) + 7 and all(map(_is_ready, pods))


def _is_ready(one: manifests.Manifest) -> bool:
    conditions = one.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _in_step() -> bool:
    """The agents answer, web has its backend, every pod on the network its CiliumEndpoint."""
    if not all((one.state / ANSWERS).exists() for one in NODES) or not sync.VIEW.exists():
        return False
    view = json.loads(sync.VIEW.read_text())
    ready = any(one["name"] == "web" and one["backends"] for one in view["services"])
    return ready and len(get("ciliumendpoints", "-A")) == len(sync.records())


def _balanced() -> bool:
    """Every node's kube-proxy has programmed the load-balancers' addresses."""
    rules = [network.inside(one.netns, "iptables-save", "-t", "nat") for one in NODES]
    return all(f"-d {address}/32" in said for said in rules for address in LB_ADDRESSES)


def _down() -> None:
    stop_all()  # a node's whole pid namespace goes with its first process
    _kill_children()
    network.down()
    _unmount()
    shutil.rmtree(STATE, ignore_errors=True)
    _remove_cgroups()
    left = [*network.left(), *([str(STATE)] if STATE.exists() else [])]
    if left:
        raise RuntimeError(f"still there: {', '.join(left)}")


def _kill_children() -> None:
    """Processes that outlived their node: known by the lab's folder or namespaces."""

    def ours() -> list[int]:
        spaces = _namespaces()
        return [int(p.name) for p in Path("/proc").glob("[0-9]*") if _is_ours(int(p.name), spaces)]

    for pid in ours():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    wait_for(lambda: not ours(), "the end of what ran in the nodes", 10)


def _namespaces() -> frozenset[int]:
    """Inodes of the lab's network namespaces."""
    found = set()
    for name in (*(one.netns for one in NODES), WORLD_NETNS):
        try:
            found.add(os.stat(f"/run/netns/{name}").st_ino)
        except OSError:
            continue
    return frozenset(found)


def _is_ours(pid: int, spaces: frozenset[int]) -> bool:
    """A process in one of our network namespaces, or a daemon that works in our state folder.

    The latter finds what an `up` started that was killed before it could note the pid.
    """
    if pid in (os.getpid(), os.getppid()):
        return False
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        space = os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return False
    program, state = words[0].rpartition(b"/")[2], f"{STATE}/".encode()
    daemon = program.startswith((b"etcd", b"kube", b"containerd", b"unshare", b"nsenter"))
    if b"tests.lab.cluster.datapath.sync" in words or words[0].startswith(state):
        return True
    return space in spaces or (daemon and any(state in word for word in words))


def _unmount() -> None:
    """Mounts under the state folder, deepest first."""
    for _ in range(3):
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        mine = sorted((m for m in mounts if m.startswith(f"{STATE}/")), key=len, reverse=True)
        if not mine:
            return
        for mount in mine:
            subprocess.run(["umount", "-l", mount], capture_output=True, check=False)


def _remove_cgroups() -> None:
    """Empty cgroups that the containers left behind; ones in use cannot be removed and stay."""
    root = Path("/sys/fs/cgroup")
    for hierarchy in (root, *root.iterdir()) if root.exists() else ():
        for name in ("k8s.io", "kubepods"):
            top = hierarchy / name
            if top.is_dir() and not top.is_symlink():
                for folder in sorted(top.rglob("*/"), key=lambda p: len(p.parts), reverse=True):
                    _rmdir(folder)
                _rmdir(top)


def _rmdir(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return
