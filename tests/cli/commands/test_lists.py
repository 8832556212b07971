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
FLOWS = ("flows", "pod/client", "--all", "--from", "demo")
LISTS = pytest.mark.parametrize("words", [PROGRAMS, FLOWS], ids=lambda words: words[0])


@LISTS
@pytest.mark.parametrize("form", ["table", "wide", "json"])
def test_forms(golden, words, form):
    done = run(*words, "-o", form)
    assert done.returncode == 0
    assert (done.stderr == "") is (form == "json")
    golden(GOLDEN / f"{words[0]}.{form}.txt", done.stdout)


@LISTS
def test_within_80_columns(words):
    code, text = on_a_terminal(*words, columns=80)
    assert code == 0
    assert max(map(len, text.splitlines())) <= 80


@LISTS
def test_json_and_yaml_say_the_same(words):
    document = json.loads(run(*words, "-o", "json").stdout)
    assert document["items"]
    assert yaml.safe_load(run(*words, "-o", "yaml").stdout) == document


def test_a_node_and_what_proves_it():
    done = run("programs", "node/node1", "--from", "demo", "-v")
    assert done.returncode == 0
    assert "cil_from_netdev" in done.stdout
    assert "$ bpftool -j net show   (cilium-agent on node1" in done.stdout


def test_flows_are_narrowed():
    everything = json.loads(run(*FLOWS, "-o", "json").stdout)["items"]
    some = json.loads(run(*FLOWS, "--to", "1.1.1.1:80", "-o", "json").stdout)["items"]
    assert 0 < len(some) < len(everything)
    assert {item["flow"]["destination"] for item in some} == {"1.1.1.1"}
    none = run(*FLOWS, "--protocol", "icmp")
    assert (none.returncode, none.stdout) == (0, "")
    assert none.stderr.splitlines()[0] == "No matching connections found."


def test_closed_flows_are_counted():
    done = run("flows", "pod/client", "--from", "demo")
    count = len(run(*FLOWS, "-o", "name").stdout.splitlines())
    assert (done.returncode, done.stdout) == (0, "")
    assert f"{count} closed connections are not shown: --all" in done.stderr.splitlines()
    document = json.loads(run("flows", "pod/client", "--from", "demo", "-o", "json").stdout)
    assert (document["items"], document["over"]) == ([], count)


@pytest.mark.parametrize(
    "peer", ["svc/web", "svc/web:80", "svc/web:http", "default/{pod}", "pod/{pod}:8080"]
)
def test_flows_to_an_object(peer):
    services = flows_of("--to", "10.97.68.63") + flows_of("--to", "10.44.1.71")
    pods = run("flows", "-A", "--from", "demo", "--all", "-o", "jsonpath={.items[*].pod}").stdout
    web = next(name for name in pods.split() if name.startswith("web-"))
    found = flows_of("--to", peer.format(pod=web))
    assert found
    assert set(found) <= set(services)
    if peer.startswith("svc"):
        assert set(found) == set(services)


def flows_of(*words: str) -> list[str]:
    return run(*FLOWS, *words, "-o", "name").stdout.split()


def test_flows_to_what_is_nobody():
    for peer, complaint in (
        ("svc/nosuch", 'service "nosuch" not found'),
        ("pod/nosuch", 'pod "nosuch" not found'),
        ("node/n9", 'node "n9" not found'),
        ("pod/client:http", "'http' is not a port"),
        ("svc/web:https", "--to svc/web: no such port or protocol"),
        ("example.com", "not an address, pod/NAME, svc/NAME or node/NAME"),
    ):
        done = run(*FLOWS, "--to", peer)
        assert complaint in done.stderr
        assert (done.returncode in (1, 2), done.stdout) == (True, "")


@LISTS
def test_pods_by_label_and_everywhere(words):
    command = words[0]
    more = ("--all", "--from", "demo", "--no-headers")
    columns = ("-o", "custom-columns=N:.namespace,P:.pod,I:.attachment.program_id,F:.flow")
    everywhere = [line.split() for line in run(command, "-A", *more, *columns).stdout.splitlines()]
    assert ["default", "client"] in [line[:2] for line in everywhere]
    web = [line for line in everywhere if line[1].startswith("web-")]
    assert 0 < len(web) < len(everywhere)
    labelled = run(command, "-l", "app=web", *more, *columns).stdout.splitlines()
    assert [line.split() for line in labelled] == web
    table = run(command, "-l", "app=web", "--all", "--from", "demo").stdout.splitlines()
    assert table[0].split()[:2] == ["NAMESPACE", "POD"]
    none = run(command, "-l", "app=nothing", *more)
    assert (none.stdout, none.returncode) == ("", 0)
    said = "No resources found: no pods in namespace default with app=nothing"
    assert none.stderr.splitlines() == [said]
    elsewhere = run(command, "-n", "nowhere", "-l", "!x", *more)
    assert elsewhere.stdout == ""


@LISTS
def test_order_and_headers(words):
    plain = run(*words).stdout.splitlines()
    assert run(*words, "--no-headers").stdout.splitlines() == plain[1:]
    column, field = {
        "flows": ("destination", "{.flow.destination}"),
        "programs": ("id", ".attachment.program_id"),
    }[words[0]]
    by_column = run(*words, "-o", "name", "--sort-by", column).stdout
    assert by_column == run(*words, "-o", "name", f"--sort-by={field}").stdout
    assert sorted(by_column.split()) == sorted(run(*words, "-o", "name").stdout.split())
    if words == PROGRAMS:
        numbers = [int(line.partition("/")[2]) for line in by_column.split()]
        assert numbers == sorted(numbers)
        assert len(run(*words, "--sort-by", column).stdout.splitlines()) == len(plain)
    refused = run(*words, "--sort-by", "nonsense")
    assert refused.returncode == 2
    assert 'couldn\'t find any field with path "{.nonsense}"' in refused.stderr


def test_parts_of_the_document(tmp_path):
    template = '{range .items[*]}{.flow.destination}{"\\n"}{end}'
    lines = run(*FLOWS, "-o", f"jsonpath={template}").stdout.splitlines()
    assert lines.count("1.1.1.1") > 1
    (tmp_path / "t").write_text(template)
    assert run(*FLOWS, "-o", f"jsonpath-file={tmp_path}/t").stdout.splitlines() == lines
    table = run(*FLOWS, "-o", "custom-columns=TO:.flow.destination,NF:.netfilter,X:.none")
    assert [line.split() for line in table.stdout.splitlines()] == [
        ["TO", "NF", "X"], *([line, "<nil>", "<none>"] for line in lines),
    ]  # fmt: skip
    (tmp_path / "c").write_text("TO NF X\n.flow.destination .netfilter .none\n")
    by_file = run(*FLOWS, "-o", f"custom-columns-file={tmp_path}/c")
    assert by_file.stdout == table.stdout
    for command in (
        ("path", "pod/client", "1.1.1.1:80", "--from", "demo"),
        ("doctor", "--from", "demo"),
    ):
        document = json.loads(run(*command, "-o", "json").stdout)
        done = run(*command, "-o", "jsonpath={.verdict} {.schema}")
        assert done.stdout == f"{document['verdict']} {document['schema']}"


def test_programs_of_socket_load_balancing_are_one_line():
    short, wide, whole = (
        run(*PROGRAMS, *more).stdout.splitlines() for more in ((), ("-o", "wide"), ("--all",))
    )
    assert len(wide) == len(whole) > 15
    assert len(short) == 3
    assert f"{len(wide) - 2} programs" in short[-1]


def test_what_was_not_read_is_not_called_empty(tmp_path):
    bundle = open_demo("demo")
    tables = [record for record in bundle.records if {"ct", "nat"} & {*record.argv}]
    refused = [
        replace(record, exit_code=None, stdout=InMemory(), error="no", denied="create pods/exec")
        for record in tables
    ]
    kept = [record for record in bundle.records if record not in tables]
    write_bundle(tmp_path / "x.zip", [*kept, *refused])
    for words in (("pod/client",), ("-l", "app=web")):
        done = run("flows", *words, "--protocol", "icmp", "--from", str(tmp_path / "x.zip"))
        assert (done.returncode, done.stdout, done.stderr.splitlines()[0]) == (
            4,
            "",
            "Unknown: the tables that would have the connections could not be read.",
        )


def test_pods_that_share_their_nodes_address_are_not_called_silent():
    for command in ("flows", "programs"):
        done = run(command, "-n", "kube-system", "-l", "k8s-app=cilium", "--from", "demo")
        assert (done.returncode, done.stdout) == (4, "")
        assert "Unknown: " in done.stderr
        assert f"({command} node/NAME)" in done.stderr


def test_a_template_is_told_apart_from_nothing():
    words = ("flows", "node/node1", "--from", "demo:unknown", "-o", "jsonpath={.items}")
    done = run(*words)
    assert (done.returncode, done.stdout) == (4, "[]")
    assert done.stderr.startswith("Unknown: ")


def test_programs_that_could_not_be_read_are_not_called_none(tmp_path):
    kept = [each for each in open_demo("demo").records if each.place.kind == "api"]
    write_bundle(tmp_path / "x.zip", kept)
    done = run("programs", "pod/client", "--from", str(tmp_path / "x.zip"))
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        4,
        "Unknown: what would name the programs could not be read.",
    )


def test_a_pod_without_an_object_is_found_as_by_path():
    capture = str(Path(__file__).parents[2] / "scenarios" / "tp06")
    done = run("flows", "pod/tp06", "--all", "--from", capture)
    assert done.returncode == 0
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
        (
            ("flows", "svc/web", "--from", "demo"),
            "flows takes a pod or node",
            "`kubectl ebpfnet path`",
        ),
        (("flows", "--from", "demo"), "TARGET is missing", "flows pod/NAME; -A or -l"),
        ((*FLOWS, "-l", "a=b,c d"), "name cannot be provided when a selector is specified", ""),
        ((*FLOWS, "-A"), "a resource cannot be retrieved by name across all namespaces", ""),
        (
            ("flows", "-l", "a=b,c d"),
            "unable to parse label selector 'a=b,c d' at character 5",
            "-l",
        ),
        (
            (*PROGRAMS, "-o", "go-template={{.items}}"),
            'unable to match a printer suitable for the output format "go-template={{.items}}", '
            "allowed formats are: custom-columns,custom-columns-file,json,jsonpath,",
            "",
        ),
        ((*PROGRAMS, "-o", "jsonpath"), "template format specified but no template given", ""),
        ((*PROGRAMS, "-o", "jsonpath={.x"), "error parsing jsonpath {.x, unclosed action", ""),
        (
            (*PROGRAMS, "-o", "jsonpath-file=/nowhere"),
            "reading template /nowhere: No such file",
            "",
        ),
        ((*PROGRAMS, "-o", "custom-columns="), "no custom columns given", ""),
        ((*PROGRAMS, "-o", "custom-columns=A"), "expected <header>:<json-path-expr>", ""),
        ((*PROGRAMS, "--sort-by", "{.x"), "error parsing jsonpath", ""),
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
    first, *second = done.stderr.splitlines()
    second = [line for line in second if not line.startswith("See 'kubectl ebpfnet")]
    assert complaint in first
    assert hint in "".join(second)
    assert bool(second) == bool(hint)


TP06 = str(Path(__file__).parents[2] / "scenarios" / "tp06")


@pytest.mark.parametrize("words", [("flows",), ("programs",), ("path", "1.1.1.1:80")])
def test_every_command_takes_the_names_that_path_takes(words):
    command, *more = words
    for name in ("pod/tp06", "tp06", "default/tp06"):
        done = run(command, name, *more, "--from", TP06)
        assert done.returncode in (0, 4), done.stderr
        assert "10.244.0.213" in done.stdout or command != "path"
    missing = run(command, "pod/nosuch", *more, "--from", TP06)
    assert missing.returncode == 1
    assert "pods in this capture: default/tp06" in missing.stderr


def test_a_capture_is_never_told_to_ask_node_pods():
    done = run("programs", "pod/tp06", "--from", TP06)
    assert "missing: " in done.stderr
    asked = (done.stdout + done.stderr).replace("`capture --node-access pod` records", "")
    assert "--node-access" not in asked
    assert "ebpfnet-node" not in asked  # the node side's words, which no user can run


def test_when_a_capture_was_made(tmp_path):
    made = replace(
        open_demo("demo"),
        records=tuple(
            replace(r, started="2026-07-20T10:11:12Z") for r in open_demo("demo").records
        ),
        source="x",
    )
    write_bundle(tmp_path / "x.zip", made.records)
    for command in (("flows", "pod/client", "--all"), ("path", "client", "1.1.1.1"), ("doctor",)):
        done = run(*command, "--from", str(tmp_path / "x.zip"))
        assert "recorded 2026-07-20T10:11:12Z" in (done.stdout + done.stderr).replace(
            "Recorded", "recorded"
        )
