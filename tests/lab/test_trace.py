"""`kubectl ebpfnet trace` in the lab: real packets, seen by BPF programs on their nodes."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.lab.cluster.config import WORLD_ADDRESS
from tests.lab.cluster.tools.live import (
    address,
    changed,
    kept_node_pods,
    path,
    pod_netns,
)
from tests.lab.conftest import Lab, wait_for_no_node_pods, wait_until
from tests.node.trace.programs import loaded

pytestmark = pytest.mark.timeout(180)
WORLD = f"{WORLD_ADDRESS}:80"


@pytest.fixture(scope="module", autouse=True)
def _node_pods(lab: Lab) -> Iterator[None]:
    """Node pods that all traces here use."""
    with kept_node_pods(lab, WORLD, "pod/client2:8080", "pod/client3:8080"):
        yield
    wait_for_no_node_pods(lab)


def traced(lab: Lab, *words: str) -> tuple[int, dict[str, Any]]:
    """Exit code and document of a trace."""
    done = lab.ebpfnet("trace", *words, "--yes", "-o", "json", "--for", "15s")
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def owners(packet: dict[str, Any]) -> list[str]:
    """Whose namespaces a packet passed, each once, in order."""
    found = [s["owner"]["name"] for s in packet["sightings"]]
    return list(dict.fromkeys(found))


def test_a_packet_out_of_the_cluster_and_its_answer(our_lab: Lab) -> None:
    code, document = traced(our_lab, "pod/client", WORLD, "--send")
    assert (code, document["verdict"]) == (0, "delivered")
    syn = document["packets"][0]
    assert (syn["what"], syn["fate"], owners(syn)) == ("SYN", "left", ["client", "node1"])
    sources = [s["event"]["flow"]["source"] for s in syn["sightings"]]
    assert sources[0] == address(our_lab, "client")
    assert sources[-1] == "172.30.0.11"  # masqueraded
    answer = next(p for p in document["packets"] if p["direction"] == "back")
    assert (answer["what"], owners(answer)) == ("SYN,ACK", ["node1", "client"])
    [sent] = document["sent"]
    assert sent["outcome"] == "answered"
    assert document["difference"] is None
    assert not any(hop["seen"] is False for hop in document["hops"] if not hop["back"])


@pytest.mark.parametrize(
    ("words", "protocol"),
    [(("pod/client3", "--protocol", "icmp"), "ICMP"), (("pod/client2:9/udp",), "UDP")],
)
def test_a_packet_to_another_node(our_lab: Lab, words: tuple[str, ...], protocol: str) -> None:
    code, document = traced(
        our_lab, "pod/client", *words, "--send", "-c", "2", "--interval", "0.1s"
    )
    forth = [p for p in document["packets"] if p["direction"] == "forth"]
    there = words[0].partition(":")[0].removeprefix("pod/")
    node = document["path"]["destination"]["node"]
    assert [owners(p) for p in forth] == [["client", "node1", node, there]] * 2
    for packet in document["packets"]:
        seconds = [s["seconds"] for s in packet["sightings"]]
        assert seconds == sorted(seconds)
    if protocol == "ICMP":
        assert (code, [p["fate"] for p in forth]) == (0, ["delivered"] * 2)
    else:
        assert code == 3
        assert "NO_SOCKET" in document["reason"]


def test_a_service_is_followed_to_its_backend(our_lab: Lab) -> None:
    code, document = traced(our_lab, "pod/client", "svc/web:80", "--send")
    assert code == 0
    syn = document["packets"][0]
    ports = [s["event"]["flow"]["destination_port"] for s in syn["sightings"]]
    assert (ports[0], ports[-1]) == (80, 8080)
    assert owners(syn)[-1].startswith("web-")


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("-p tcp --dport 7777 -j DROP", "NETFILTER_DROP"),
        ("-p tcp --dport 7777 -j REJECT --reject-with tcp-reset", ""),
    ],
)
def test_what_a_pods_own_rules_do_is_named_at_its_place(
    our_lab: Lab, rule: str, reason: str
) -> None:
    inside = pod_netns("client")
    do = [*inside, "iptables", "-I", "OUTPUT", *rule.split()]
    undo = [*inside, "iptables", "-D", "OUTPUT", *rule.split()]
    with changed(do, undo):
        code, document = traced(our_lab, "pod/client", f"{WORLD_ADDRESS}:7777", "--send")
        told = path(our_lab, "pod/client", f"{WORLD_ADDRESS}:7777", "--node-access", "pod")
    assert code == 3
    assert told.document["verdict"] == "dropped"
    if reason:
        assert reason in document["reason"]
        assert "pod default/client" in document["reason"]


def test_without_packets_nothing_is_claimed(our_lab: Lab) -> None:
    done = our_lab.ebpfnet("trace", "pod/bare", WORLD, "--yes", "--for", "1s")
    assert done.returncode == 4
    assert "no packet of this flow was seen" in done.stdout


def test_a_trace_is_kept_for_a_colleague(our_lab: Lab, tmp_path: Any) -> None:
    file = tmp_path / "trace.zip"
    live = our_lab.ebpfnet("trace", "pod/client", WORLD, "--send", "--yes", "--save", str(file))
    read = our_lab.ebpfnet("trace", "pod/client", WORLD, "--from", str(file))
    assert (live.returncode, read.returncode) == (0, 0)
    assert read.stdout.splitlines()[:12] == live.stdout.splitlines()[:12]


def test_an_interrupt_ends_it_with_the_answer_and_leaves_nothing(our_lab: Lab) -> None:
    before = loaded()
    words = f"trace pod/client {WORLD} --yes --for 60s --node-access pod -o events"
    argv = ("kubectl-ebpfnet", *words.split())  # without notices: each line is a packet's
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, env=our_lab.env(), stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        out = process.stdout.fileno()

        def told() -> bool:
            """Whether it told of a connection; they begin before it watches, too."""
            our_lab.run("client", "nc", "-w", "1", WORLD_ADDRESS, "80")
            return bool(select.select([out], [], [], 1)[0])

        wait_until(lambda: loaded() - before)
        wait_until(told)
        first = json.loads(process.stdout.readline())
        assert first["event"]["flow"]["destination_port"] in (
            80,
            first["event"]["flow"]["source_port"],
        )
        process.send_signal(signal.SIGINT)
        process.wait(20)
    wait_until(lambda: not loaded() - before, 5)


def test_who_may_not_deploy_is_told(our_lab: Lab, nobody: Any) -> None:
    done = our_lab.ebpfnet("trace", "pod/client", WORLD, "--yes", kubeconfig=nobody)
    assert done.returncode == 1
    assert "pods" in done.stderr


def test_without_a_terminal_it_wants_yes(our_lab: Lab) -> None:
    done = our_lab.ebpfnet("trace", "pod/client", WORLD)
    assert done.returncode == 1
    assert "--yes" in done.stderr


def test_drops_are_kept_and_read_again(our_lab: Lab, tmp_path: Any) -> None:
    kept = str(tmp_path / "drops.zip")
    closed = f"{address(our_lab, 'client2')}:9"
    with pinging(closed):
        done = our_lab.ebpfnet(
            "trace", "--drops", "pod/client2", "--for", "4s", "--yes", "--save", kept
        )
    assert done.returncode == 3, done.stdout
    assert "NO_SOCKET" in done.stdout
    again = our_lab.ebpfnet("trace", "--drops", "pod/client2", "--from", kept)
    assert (again.returncode, again.stdout) == (3, done.stdout)
    other = our_lab.ebpfnet("trace", "--drops", "pod/client", "--from", kept)
    assert other.returncode == 2
    assert "the capture has no such trace" in other.stderr


def test_a_process_of_a_node_is_a_source(our_lab: Lab, tmp_path: Any) -> None:
    source, kept = f"pid/{process_of('client')}@node/node1", str(tmp_path / "process.zip")
    code, document = traced(our_lab, source, WORLD, "--send", "--save", kept)
    assert (code, document["verdict"], document["path"]) == (0, "delivered", None)
    syn = document["packets"][0]
    assert (syn["what"], owners(syn)) == ("SYN", ["client", "node1"])
    again = our_lab.ebpfnet("trace", source, WORLD, "--from", kept, "-o", "json")
    assert json.loads(again.stdout)["packets"] == document["packets"]
    code, document = traced(our_lab, "pid/4000000@node/node1", WORLD, "--send")
    assert code == 4
    assert "process 4000000: No such file" in document["reason"]


def process_of(pod: str) -> int:
    """A process in the network namespace of a pod, by its number on the pod's node."""
    netns = os.stat(pod_netns(pod)[1].partition("=")[2]).st_ino
    for process in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            if os.stat(f"/proc/{process}/ns/net").st_ino == netns:
                status = Path(f"/proc/{process}/status").read_text()
                numbers = status.partition("NSpid:")[2].split("\n")[0].split()
                if len(numbers) > 1:
                    return int(numbers[1])
    raise LookupError(f"no process of {pod}")


@contextmanager
def pinging(to: str) -> Iterator[None]:
    """pod/client sends datagrams to an address and port."""
    host, _, port = to.rpartition(":")
    loop = f"while :; do echo x | nc -u -w1 {host} {port}; sleep 0.2; done"
    process = subprocess.Popen([*pod_netns("client"), "sh", "-c", loop])
    try:
        yield
    finally:
        process.kill()
        process.wait()
