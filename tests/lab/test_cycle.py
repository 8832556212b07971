"""`down` leaves nothing, even after an `up` that was killed on the way.

Takes the running lab away, so it runs only when asked for: EBPFNET_LAB_CYCLE=1, or `make
lab-cycle`. At the end it brings the lab up again if one was there.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.cluster import kubectl, lifecycle
from tests.lab.cluster.config import BINARIES, NODES, STATE
from tests.lab.cluster.image import node_image
from tests.lab.cluster.processes import wait_for
from tests.lab.conftest import why_not

pytestmark = [
    pytest.mark.lab,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not os.environ.get("EBPFNET_LAB_CYCLE"), reason="takes the lab down: EBPFNET_LAB_CYCLE=1"
    ),
]
UP = [sys.executable, "-m", "tests.lab", "up"]
ROOT = Path(__file__).parents[2]


def traces() -> dict[str, list[str]]:
    """What a lab could leave on the machine."""

    def said(*argv: str) -> list[str]:
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()

    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    cgroups = [str(p) for p in Path("/sys/fs/cgroup").glob("*/*") if p.is_dir()]
    return {
        "links": sorted(line.split(":")[1] for line in said("ip", "-o", "link")),
        "addresses": sorted(line for line in said("ip", "-o", "addr") if "inet " in line),
        "routes": sorted(said("ip", "route")),
        "netns": sorted(said("ip", "netns")),
        "mounts": sorted(mounts),
        "rules": [line for line in said("iptables-save") if not line.startswith("#")],
        "cgroups": sorted(path for path in cgroups if "k8s" in path or "kube" in path),
        "processes": sorted(filter(None, map(command, Path("/proc").glob("[0-9]*")))),
        "state": [str(STATE)] if STATE.exists() else [],
    }


def command(process: Path) -> str:
    """A process's command line if it is the lab's, else ""."""
    try:
        words = (process / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return ""
    names = (str(STATE), str(BINARIES), "tests.lab", "tests/lab/cluster/nodes/world.py")
    return " ".join(words) if any(name in word for word in words for name in names) else ""


@pytest.fixture(scope="module", autouse=True)
def before() -> Iterator[dict[str, list[str]]]:
    """What is on the machine without a lab; ends with the lab that was there."""
    if why := why_not():
        pytest.skip(why)
    was_up = lifecycle.is_up()
    lifecycle.down()
    yield traces()
    lifecycle.down()
    if was_up:
        lifecycle.up()


@pytest.mark.parametrize("step", ["etcd.json", "kube-scheduler.json", "node2.json", "sync.json"])
def test_killed_on_the_way_up(before: dict[str, list[str]], step: str) -> None:
    up = subprocess.Popen(UP, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: (STATE / "pids" / step).exists(), step, 120)
    up.send_signal(signal.SIGKILL)
    up.wait()
    assert not lifecycle.is_up()
    lifecycle.down()
    assert traces() == before


def test_up_clears_away_a_half_dead_lab_and_down_leaves_nothing(
    before: dict[str, list[str]],
) -> None:
    lifecycle.up()
    os.kill(lifecycle.alive("kube-apiserver"), signal.SIGKILL)
    wait_for(lambda: not lifecycle.is_up(), "the end of the API server", 10)
    again = subprocess.run(UP, cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert again.stdout == f"export KUBECONFIG={STATE}/admin.conf\n"
    assert lifecycle.is_up()
    assert len(kubectl.get("nodes")) == 3
    during = traces()
    assert during["links"] != before["links"]
    assert during["processes"] != before["processes"]
    lifecycle.down()
    assert traces() == before


def test_up_gives_a_lab_that_is_up_the_node_image_of_this_checkout() -> None:
    lifecycle.up()
    made_from = STATE / "images/node.made-from"
    ours = made_from.read_text()
    ctr = ["ctr", "-a", str(NODES[0].state / "containerd.sock"), "-n", "k8s.io", "images"]
    subprocess.run([*ctr, "rm", node_image.NAME], check=True)
    made_from.write_text("another checkout's")
    lifecycle.up()
    assert made_from.read_text() == ours
    there = subprocess.run([*ctr, "ls", "-q"], capture_output=True, text=True, check=True)
    assert node_image.NAME in there.stdout.split()
    lifecycle.down()


def test_down_when_nothing_is_there() -> None:
    lifecycle.down()
    lifecycle.down()
    assert not STATE.exists()
