"""`programs` and `flows` as a person sees them, on the recorded cluster."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from kubectl_ebpfnet.capture.demo import open_demo
from kubectl_ebpfnet.capture.write import write_bundle
from kubectl_ebpfnet.model.evidence import InMemory
from tests.cli.console import on_a_terminal, run

GOLDEN = Path(__file__).parents[1] / "expected"
PROGRAMS = ("programs", "pod/client", "--from", "demo")
FLOWS = ("flows", "pod/client", "--from", "demo")


@pytest.mark.parametrize("words", [PROGRAMS, FLOWS], ids=lambda words: words[0])
@pytest.mark.parametrize("form", ["table", "wide", "json"])
def test_forms(golden, words, form):
    done = run(*words, "-o", form)
    assert (done.returncode, done.stderr) == (0, "")
    golden(GOLDEN / f"{words[0]}.{form}.txt", done.stdout)


@pytest.mark.parametrize("words", [PROGRAMS, FLOWS], ids=lambda words: words[0])
def test_within_80_columns(words):
    code, text = on_a_terminal(*words, columns=80)
    assert code == 0
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("words", [PROGRAMS, FLOWS], ids=lambda words: words[0])
def test_json_and_yaml_say_the_same(words):
    document = json.loads(run(*words, "-o", "json").stdout)
    assert document["items"]
    assert yaml.safe_load(run(*words, "-o", "yaml").stdout) == document


def test_a_node_and_what_proves_it():
    done = run("programs", "node/node1", "--from", "demo", "-v")
    assert (done.returncode, done.stderr) == (0, "")
    assert "cil_from_netdev" in done.stdout
    assert "$ bpftool -j net show   (cilium-agent on node1" in done.stdout


def test_flows_are_narrowed():
    everything = json.loads(run(*FLOWS, "-o", "json").stdout)["items"]
    some = json.loads(run(*FLOWS, "--to", "1.1.1.1:80", "-o", "json").stdout)["items"]
    assert 0 < len(some) < len(everything)
    assert {item["flow"]["destination"] for item in some} == {"1.1.1.1"}
    none = run(*FLOWS, "--protocol", "icmp")
    assert (none.returncode, none.stdout.splitlines()[2]) == (0, "No matching connections found.")


def test_what_was_not_read_is_not_called_empty(tmp_path):
    bundle = open_demo("demo")
    tables = [record for record in bundle.records if {"ct", "nat"} & {*record.argv}]
    refused = [
        replace(record, exit_code=None, stdout=InMemory(), error="no", denied="create pods/exec")
        for record in tables
    ]
    kept = [record for record in bundle.records if record not in tables]
    write_bundle(tmp_path / "x.zip", [*kept, *refused])
    done = run("flows", "pod/client", "--protocol", "icmp", "--from", str(tmp_path / "x.zip"))
    assert (done.returncode, done.stdout.splitlines()[2]) == (
        4,
        "Unknown: the tables that would have the connections could not be read.",
    )


def test_programs_that_could_not_be_read_are_not_called_none(tmp_path):
    kept = [each for each in open_demo("demo").records if each.place.kind == "api"]
    write_bundle(tmp_path / "x.zip", kept)
    done = run("programs", "pod/client", "--from", str(tmp_path / "x.zip"))
    assert (done.returncode, done.stdout.splitlines()[2]) == (
        4,
        "Unknown: what would name the programs could not be read.",
    )


def test_a_pod_without_an_object_is_found_as_by_path():
    capture = str(Path(__file__).parents[2] / "scenarios" / "tp06")
    done = run("flows", "pod/tp06", "--from", capture)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1.0.0.1:80" in done.stdout
    assert "bpf_lxc.o" in run("programs", "pod/tp06", "--from", capture).stdout


@pytest.mark.parametrize(
    ("words", "complaint", "hint"),
    [
        (("programs", "pod/nobody", "--from", "demo"), 'pod "nobody" not found', "client"),
        (("programs", "node/n9", "--from", "demo"), 'node "n9" not found', "node2, node1"),
        (
            ("programs", "svc/web", "--from", "demo"),
            "programs takes a pod or node",
            "for a Service use",
        ),
        ((*PROGRAMS, "-o", "tree"), "no such format", "table, wide, json, yaml"),
        ((*FLOWS, "--to", "web"), "not an address", "--to 1.1.1.1"),
        ((*FLOWS, "--protocol", "quic"), "unknown protocol", "tcp, udp, sctp, icmp"),
        (("flows", "pod/x", "--node-access", "ssh"), "no such mode", "auto, agent, pod, none"),
        (
            ("flows", "pod/x", "--node-access", "agent", "--keep"),
            "no node pod is deployed",
            "pod deploys",
        ),
    ],
)
def test_mistakes_say_what_to_do(words, complaint, hint):
    done = run(*words)
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    first, second, *usage = done.stderr.splitlines()
    assert [line[:20] for line in usage] in ([], ["See 'kubectl ebpfnet"])
    assert complaint in first
    assert hint in second


TP06 = str(Path(__file__).parents[2] / "scenarios" / "tp06")


@pytest.mark.parametrize("words", [("flows",), ("programs",), ("path", "1.1.1.1:80")])
def test_every_command_takes_the_names_that_path_takes(words):
    command, *more = words
    for name in ("pod/tp06", "tp06", "default/tp06"):
        done = run(command, name, *more, "--from", TP06)
        assert done.returncode in (0, 4), done.stderr
        assert "10.244.0.213" in done.stdout or command == "programs"
    missing = run(command, "pod/nosuch", *more, "--from", TP06)
    assert missing.returncode == 1
    assert "pods in this capture: default/tp06" in missing.stderr


def test_a_capture_is_never_told_to_ask_node_pods():
    assert "--node-access" not in run("programs", "pod/tp06", "--from", TP06).stdout


def test_when_a_capture_was_made(tmp_path):
    made = replace(
        open_demo("demo"),
        records=tuple(
            replace(r, started="2026-07-20T10:11:12Z") for r in open_demo("demo").records
        ),
        source="x",
    )
    write_bundle(tmp_path / "x.zip", made.records)
    for command in (("flows", "pod/client"), ("path", "client", "1.1.1.1"), ("doctor",)):
        text = run(*command, "--from", str(tmp_path / "x.zip")).stdout
        assert "recorded 2026-07-20T10:11:12Z" in text.replace("Recorded", "recorded")
