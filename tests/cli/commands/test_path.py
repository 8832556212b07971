"""`path --from` as a person sees it, on recorded scenarios: every format, terminals, pipes."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.cli.console import PROGRAM, SECONDS, environment, on_a_terminal, run, through_kubectl

SCENARIO = str(Path(__file__).parents[2] / "scenarios" / "vxlan-kpr")
DENIED = str(Path(__file__).parents[2] / "scenarios" / "vxlan-kpr-egress-policy")
OUTSIDE = ("path", "pod/client", "1.1.1.1:80", "--from", SCENARIO)


def test_table():
    done = run(*OUTSIDE)
    assert (done.returncode, done.stderr) == (0, "")
    opening, way, *_ = done.stdout.split("\n\n")
    assert opening.startswith("DELIVERED  pod/client → 1.1.1.1:80/TCP\n           answered ")
    assert re.match(r"pod default/client +10\.\S+ → 1\.1\.1\.1:80\n ~ route ", way)


def test_the_demo_needs_no_cluster():
    done = through_kubectl("path", "pod/client", "1.1.1.1:80", "--from", "demo")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("DELIVERED ")


def test_a_drop_has_its_exit_code():
    done = through_kubectl("path", "pod/client", "1.1.1.1:443", "--from", DENIED)
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.startswith("DROPPED ")
    assert "\n           at node2, by the egress policy of pod/client\n" in done.stdout


def test_flags_may_stand_anywhere():
    plain = run(*OUTSIDE).stdout
    for words in (
        ("path", f"--from={SCENARIO}", "-n=default", "pod/client", "-o=table", "1.1.1.1:80"),
        ("-n", "default", "path", "client", "--protocol", "TCP", "1.1.1.1:80", "--from", SCENARIO),
    ):
        assert run(*words).stdout == plain


def test_json_and_yaml():
    document = json.loads(run(*OUTSIDE, "-o", "json").stdout)
    assert document["verdict"] == "delivered"
    assert yaml.safe_load(run(*OUTSIDE, "-oyaml").stdout) == document


@pytest.mark.parametrize("name", ["wide", "mermaid", "dot", "html"])
def test_other_formats(name):
    done = run(*OUTSIDE, "-o", name)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1.1.1.1" in done.stdout


@pytest.mark.parametrize("flag", ["-v", "-v=1", "--v=1", "--v", "-vv"])
def test_evidence(flag):
    done = run(*OUTSIDE, flag)
    assert done.returncode == 0
    commands = re.findall(r"^ +\[(\d+)\] \$ ", done.stdout, re.M)
    assert len(commands) > 5
    assert len(set(commands)) == len(commands)  # each record's command once
    assert " $ " not in run(*OUTSIDE).stdout


def test_no_such_pod():
    done = run("path", "pod/nobody", "1.1.1.1", "--from", SCENARIO)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith('error: pod "nobody" not found in namespace default\nhint: ')


@pytest.mark.parametrize("columns", [80, 60, 40])
def test_keeps_within_a_terminal(columns):
    code, text = on_a_terminal(*OUTSIDE, columns=columns, env={"NO_COLOR": "1"})
    assert code == 0
    assert max(map(len, text.splitlines())) <= columns
    assert "\x1b" not in text


def test_colour_only_where_it_is_seen():
    _, text = on_a_terminal(*OUTSIDE)
    assert "\x1b[1;32mDELIVERED\x1b[0m" in text
    assert "\x1b" not in on_a_terminal(*OUTSIDE, "--color=never")[1]
    assert "\x1b" not in on_a_terminal(*OUTSIDE, env={"TERM": "dumb"})[1]
    assert "\x1b" not in run(*OUTSIDE).stdout
    assert "\x1b[1;32mDELIVERED" in run(*OUTSIDE, "--color", "always").stdout
    assert "\x1b[1;32mDELIVERED" in run(*OUTSIDE, env={"FORCE_COLOR": "1"}).stdout


def test_progress_on_a_terminal_is_cleared_before_the_answer():
    _, text = on_a_terminal(*OUTSIDE, stderr_too=True, env={"NO_COLOR": "1"})
    assert text.startswith("\r\x1b[K")
    assert "\r\x1b[KDELIVERED  pod/client " in text


def test_head():
    done = subprocess.run(
        f"{PROGRAM} {' '.join(OUTSIDE)} -v | head -1",
        shell=True,
        capture_output=True,
        encoding="utf-8",
        env=environment(),
        timeout=SECONDS,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.startswith("DELIVERED  pod/client ")
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("http://1.1/",), 0, "→ 1.0.0.1:80/TCP\n"),
        (("1.1:80/udp",), 0, "→ 1.0.0.1:80/UDP\n"),
        (("default/web:8080",), 0, "→ pod/web 10.244.0.135:8080/TCP\n"),
        (("web.default.svc.cluster.local:80",), 0, "10.96.51.4:80/TCP\n"),
        (("1.2.3.4",), 0, "→ 1.2.3.4/TCP (no port given: any)\n"),
        (("pod/web",), 0, ":8080/TCP (no port given: the newest tracked flow's)\n"),
        (("node/node1",), 0, "to node node1"),
        (("224.0.0.1:80",), 3, "TCP has no multicast"),
        (("nosuch.example:80",), 4, "nothing says what nosuch.example resolves to"),
        (("pod/web:8080", "-6"), 4, "pod default/web has no IPv6 address"),
        (("10.96.44.44:80",), 0, "leaves the cluster"),
        (("0.0.0.0:80",), 2, "is no host's address"),
        (("[fe80::1%eth0]:80",), 2, "a zone names a device of one machine"),
        (("pod/web:8080", "-n", "shop", "--to-namespace", "default"), 1, 'pod "client" not found'),
    ],
)
def test_destinations_and_their_exit_codes(words, code, says):
    done = run("path", "pod/client", *words, "--from", SCENARIO)
    assert done.returncode == code, done.stderr
    assert says in (done.stdout or done.stderr)


def test_a_source_as_hubble_writes_it():
    plain = run(*OUTSIDE).stdout
    assert run("path", "default/client", *OUTSIDE[2:]).stdout == plain
    refused = run("path", "-n", "shop", "default/client", *OUTSIDE[2:])
    assert (refused.returncode, refused.stdout) == (2, "")


def test_the_address_of_a_pod_is_that_pod():
    named = run("path", "pod/client", "1.1.1.1:80", "--from", "demo", "-o", "json", "-4")
    document = json.loads(named.stdout)
    address = document["source"]["address"]
    words = ("path", address, "1.1.1.1:80", "--from", "demo")
    document["source"]["text"] = address
    assert json.loads(run(*words, "-o", "json").stdout) == document
    assert f"  {address} (pod/client) → 1.1.1.1:80/TCP\n" in run(*words).stdout
