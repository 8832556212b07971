"""What words become: commands, flags and values, and the names of a capture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kubectl_ebpfnet.capture.write import write_bundle
from kubectl_ebpfnet.cli import app
from kubectl_ebpfnet.model.evidence import API, InMemory, Record
from tests.cli.console import run

DEMO = ["path", "--from", "demo"]
WEB = "pod/web-7c469c57c9-8p62k"


def answer(*words: str, env: dict[str, str] | None = None) -> tuple[list[str], str]:
    """The values for the last word, and the directive."""
    done = run("__complete", *words, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    *lines, last = done.stdout.splitlines()
    return [line.split("\t")[0] for line in lines], last


@pytest.mark.parametrize(
    ("words", "values", "directive"),
    [
        (["pa"], ["path"], ":4"),
        (["c"], ["capture", "cleanup", "completion"], ":4"),
        (["zzz"], [], ":4"),
        (["help", "pa"], ["path"], ":4"),
        (["help", "path", ""], [], ":4"),
        (["path", "-l", "app=x", "s"], ["svc/"], ":6"),
        (["nonsense", ""], [], ":4"),
        (["path", ""], ["pod/", "deploy/", "sts/", "ds/", "node/"], ":6"),
        (["path", "po"], ["pod/"], ":6"),
        (["flows", "n"], ["node/"], ":6"),
        (["path", "pod/x", ""], ["pod/", "svc/", "node/"], ":6"),
        (["path", "-n", "shop", "pod/x", "s"], ["svc/"], ":6"),
        (["path", "-nshop", "-o=json", "pod/x", "s"], ["svc/"], ":6"),
        (["path", "pod/x", "1.1.1.1", ""], [], ":4"),
        (["path", "--pro"], ["--protocol"], ":4"),
        (["path", "--protocol", ""], ["tcp", "udp", "sctp", "icmp"], ":4"),
        (["probe-lb", "--protocol", ""], ["tcp", "udp"], ":4"),
        (["path", "-o", "js"], ["json", "jsonpath=", "jsonpath-as-json=", "jsonpath-file="], ":4"),
        (["flows", "-o", "custom-columns="], ["custom-columns="], ":6"),
        (["path", "--output=me"], ["mermaid"], ":4"),
        (["path", "--color", "a"], ["auto", "always"], ":4"),
        (["path", "--node-access", ""], ["auto", "agent", "pod", "none"], ":4"),
        (["path", "--kubeconfig", ""], [], ":0"),
        (["path", "--from", "case"], [], ":0"),
        (["path", "--from", "demo:"], ["demo:dropped", "demo:unknown"], ":4"),
        (["path", "--from=demo:d"], ["demo:dropped"], ":4"),
        (["capture", "pod/x", "n"], ["node/"], ":6"),
        (["version", "-o", ""], ["json", "yaml"], ":4"),
        (["cleanup", "--dry-run="], ["none", "client", "server"], ":4"),
        (["probe-lb", "--dry-run", "s"], ["svc/"], ":6"),
        (["path", "-v", "po"], ["pod/"], ":6"),
        (["completion", ""], ["bash", "zsh", "fish"], ":4"),
        (["completion", "zsh", ""], [], ":4"),
    ],
)
def test_words_that_need_no_names(words: list[str], values: list[str], directive: str) -> None:
    assert answer(*words) == (values, directive)


@pytest.mark.parametrize(
    ("words", "values", "directive"),
    [
        ([*DEMO, "pod/w"], [WEB], ":4"),
        ([*DEMO, "cl"], ["client", "client1"], ":4"),
        ([*DEMO, "-n", "kube-system", "po/cilium-t"], ["po/cilium-tfss2"], ":4"),
        ([*DEMO, "kube-system/cilium-t"], ["kube-system/cilium-tfss2"], ":4"),
        ([*DEMO, "deploy/"], ["deploy/web"], ":4"),
        ([*DEMO, "-n", "kube-system", "ds/"], ["ds/cilium"], ":4"),
        ([*DEMO, "pod", "cl"], ["client", "client1"], ":4"),
        ([*DEMO, "pod", "client", "svc/web:"], ["svc/web:http", "svc/web:80"], ":4"),
        ([*DEMO, "pod/client", "svc", "web-n"], ["web-np"], ":6"),
        (["show-record", "--from=demo", "99"], ["99"], ":4"),
        (["show-record", ""], [], ":4"),
        (["probe-lb", "--from=demo", "svc/web-np", "--port", ""], ["http", "80"], ":4"),
        (["flows", "--from=demo", "--to", "svc/web-n"], ["svc/web-np"], ":6"),
        ([*DEMO, "node/"], ["node/node1", "node/node2"], ":4"),
        ([*DEMO, "svc/"], [], ":4"),
        ([*DEMO, "pod/client", "svc/w"],
         ["svc/web", "svc/web-lb-cluster", "svc/web-lb-local", "svc/web-np"], ":6"),
        ([*DEMO, "pod/client", "svc/web:"], ["svc/web:http", "svc/web:80"], ":4"),
        ([*DEMO, "pod/client", "svc/udp-lb-local:"],
         ["svc/udp-lb-local:udp", "svc/udp-lb-local:90/udp"], ":4"),
        ([*DEMO, "pod/client", f"{WEB}:"], [f"{WEB}:8080", f"{WEB}:8081/udp"], ":4"),
        ([*DEMO, "pod/client", "node/node1:"], [], ":4"),
        ([*DEMO, "pod/client", "deploy/"], [], ":4"),
        ([*DEMO, "pod/client", "1.1.1.1"], [], ":6"),
        ([*DEMO, "kube-system/x", "svc/"], ["svc/hubble-peer"], ":6"),
        ([*DEMO, "--to-namespace", "kube-system", "pod/client", "svc/"], ["svc/hubble-peer"], ":6"),
        ([*DEMO, "-n", ""], ["default", "kube-system"], ":4"),
        ([*DEMO, "--to-namespace=k"], ["kube-system"], ":4"),
        ([*DEMO, "--via", "node/"], ["node/node1", "node/node2"], ":4"),
        (["--namespace", "x", "path", "--from=demo", "node/node2"], ["node/node2"], ":4"),
        (["path", "--from", "demo:absent", "pod/"], [], ":4"),
        (["path", "--from", "/dev/null", "pod/"], [], ":4"),
        (["path", "--from", "-", "pod/"], [], ":4"),
    ],
)  # fmt: skip
def test_names_of_a_capture(words: list[str], values: list[str], directive: str) -> None:
    assert answer(*words) == (values, directive)


def test_files_stand_beside_the_demos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demons.zip").touch()
    (tmp_path / "case.zip").touch()
    (tmp_path / ".hidden").touch()
    (tmp_path / "day").mkdir()
    demos = ["demo", "demo:dropped", "demo:unknown"]
    assert answer("path", "--from", "") == ([*demos, "case.zip", "day/", "demons.zip"], ":4")
    assert answer("path", "--from", "de") == ([*demos, "demons.zip"], ":4")
    assert answer("path", "--from", "da") == ([], ":0")


def test_a_hostile_name_is_not_offered(tmp_path: Path) -> None:
    names = ("good", "b\x1b[31mad", "$(reboot)", "two words", "x\nevil")
    pods = [{"metadata": {"namespace": "default", "name": name}} for name in names]
    listed = json.dumps({"kind": "PodList", "items": pods}).encode()
    record = Record(1, API, ("get", "pods", "-A"), 0, InMemory(listed))
    write_bundle(tmp_path / "c.zip", [record])
    assert answer("path", "--from", str(tmp_path / "c.zip"), "pod/") == (["pod/good"], ":4")


def test_names_of_a_kubeconfig(tmp_path: Path) -> None:
    config = tmp_path / "config"
    entries = {
        kind: [{"name": name, kind[:-1]: {}} for name in (f"{kind}-1", "arn:aws:eks/x", "a\tb")]
        for kind in ("contexts", "clusters", "users")
    }
    config.write_text(json.dumps(entries))
    for flag in ("--context", "--cluster", "--user"):
        expected = [f"{flag[2:]}s-1", "arn:aws:eks/x"]
        assert answer("path", flag, "", env={"KUBECONFIG": str(config)}) == (expected, ":4")
        assert answer("path", "--kubeconfig", str(config), f"{flag}=arn")[0] == ["arn:aws:eks/x"]
    assert answer("path", "--context", "") == ([], ":4")


def test_without_a_cluster_nothing_is_offered_and_nothing_said() -> None:
    assert answer("path", "pod/") == ([], ":4")
    assert answer("path", "-n", "") == ([], ":4")


@pytest.mark.parametrize("command", ["path", "flows", "programs", "doctor", "probe-lb", "version"])
def test_every_format_that_is_offered_is_one(command: str) -> None:
    formats, _ = answer(command, "-o", "")
    assert "json" in formats
    targets = {
        "path": ["pod/client", "1.1.1.1"],
        "flows": ["pod/client"],
        "programs": ["pod/client"],
    }
    for name in formats:
        done = run(command, *targets.get(command, []), "-o", name, "--from", "demo")
        assert "no such format" not in done.stderr


def test_every_flag_that_is_offered_is_known() -> None:
    for command in app.COMMANDS:
        flags, _ = answer(command, "-")

        assert all(flag in run(command, "--help").stdout for flag in flags)
