"""`netkat` on the command line: whose word is which, its streams, its exit codes, its end.

The cluster is a fake one whose node pods run the real node side with a program of the test's in
netkat's place. A real one is in tests/lab.
"""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kubectl_ebpfnet.cli import kubectl_flags, netkat_arguments, with_flags
from kubectl_ebpfnet.cli.app import normalize
from kubectl_ebpfnet.cluster.nodepods import sides
from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.model.netkat import request as netkat
from kubectl_ebpfnet.model.protocol import frames
from tests.cli.console import PROGRAM, environment, run, through_kubectl
from tests.cluster.exec.live_node import CAT, on_the_node
from tests.cluster.fake_api_server import FakeApiServer, Program, exited, status_reply
from tests.cluster.fake_cluster import FakeCluster
from tests.cluster.node_sessions import NONE, OURS, answer, requests, session_words, with_node_side

PAGE = Path(__file__).parents[3] / "docs/commands/netkat.md"
SHOW = "import json\nos.write(1, json.dumps(words).encode())\nreturn 0"


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    server = FakeApiServer()
    one = FakeCluster(server)
    for name, addresses in (("n1", ("10.0.0.1",)), ("n2", ("10.0.0.2", "fd00::2"))):
        one.node(name)
        one.objects[f"/api/v1/nodes/{name}"]["metadata"] = {"name": name}
        listed = [{"type": "InternalIP", "address": address} for address in addresses]
        one.objects[f"/api/v1/nodes/{name}"]["status"]["addresses"] = listed
    yield one
    server.close()


def argv(cluster: FakeCluster, *words: str) -> list[str]:
    return ["netkat", f"--server={cluster.server.url}", *words]


def netkat_is(body: str, started: list[subprocess.Popen[bytes]] | None = None) -> Program:
    """Our node side is there, and netkat a Python function with this body."""
    return with_node_side(on_the_node(body, started))


@contextmanager
def session(cluster: FakeCluster, *words: str, **streams: int) -> Iterator[subprocess.Popen[bytes]]:
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [PROGRAM, *argv(cluster, *words)],
        env=environment(),
        **{"stdin": pipe, "stdout": pipe, "stderr": pipe, **streams},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def said(cluster: FakeCluster, *words: str, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
    with session(cluster, *words) as process:
        out, err = process.communicate(stdin, timeout=30)
        return process.returncode, out, err


# --- words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("netkat node/n1 -l -v 1", "netkat -- node/n1 -l -v 1"),
        ("netkat --context c --keep node/n1 -o=x", "netkat --context c --keep -- node/n1 -o=x"),
        ("netkat -v node/n1 h 1", "netkat -v -- node/n1 h 1"),
        ("netkat -v 9 node/n1 h 1", "netkat -v 9 -- node/n1 h 1"),
        ("netkat --timeout=5s node/n1", "netkat --timeout=5s -- node/n1"),
        ("netkat --timeout 5s node/n1", "netkat --timeout 5s -- node/n1"),
        ("netkat -- node/n1 h 1", "netkat -- node/n1 h 1"),
        ("netkat node/n1 -- -l h 1", "netkat -- node/n1 -- -l h 1"),
        ("netkat -h", "netkat -h"),
        ("netkat", "netkat"),
        ("--context c netkat node/n1 -w 1 h 1", "netkat --context c -- node/n1 -w 1 h 1"),
        ("path pod/a 1.1.1.1", "path pod/a 1.1.1.1"),
    ],
)
def test_what_follows_the_node_is_left_alone(given, read):
    assert normalize(given.split()) == read.split()


@pytest.mark.usefixtures("services")
@pytest.mark.parametrize(
    ("given", "version", "via", "pcap", "sent"),
    [
        ("1.1.1.1 80", 4, "", "", "1.1.1.1 80"),
        ("-4 name 80", 4, "", "", "-4 name 80"),
        ("-6uv name 80", 6, "", "", "--udp -6 --verbose name 80"),
        ("name 80 --source fd00::1", 6, "", "", "--source=fd00::1 name 80"),
        ("-w5 -p 80 name http", 0, "", "", "--source-port=80 --wait=5.0 name 80"),
        ("-u name domain", 0, "", "", "--udp name 53"),
        ("--via node/n2 fd00::9 80", 6, "n2", "", "--via=HOP fd00::9 80"),
        ("-via=no/n2 h 1", 0, "n2", "", "--via=HOP h 1"),
        ("--via 10.0.0.2 h 1", 0, "", "", "--via=10.0.0.2 h 1"),
        ("--via 0a:0b:0c:0d:0e:0f h 1", 0, "", "", "--via=0a:0b:0c:0d:0e:0f h 1"),
        ("-pcap f h 1", 0, "", "f", f"--pcap={netkat_arguments.PCAP} h 1"),
        ("h 1 --pcap=a/b -d", 0, "", "a/b", f"--debug --pcap={netkat_arguments.PCAP} h 1"),
        ("h 1 --exec -- p --via node/x -h", 0, "", "", "h 1 --exec -- p --via node/x -h"),
        ("-z -- h 1", 0, "", "", "-z h 1"),
    ],
)
def test_netkats_words(given, version, via, pcap, sent):
    read = netkat_arguments.read(given.split())
    assert (read.request.ip_version, read.via, read.pcap) == (version, via, pcap)
    assert list(read.for_node("HOP" if via else "", terminal=False)) == sent.split()


@pytest.mark.parametrize(
    ("given", "why", "do"),
    [
        ("", "two operands are needed, HOST and PORT, not 0", "node/NAME -h'"),
        ("h", "two operands are needed, HOST and PORT, not 1 (h)", "node/NAME -h'"),
        ("h 1 2", "two operands are needed, HOST and PORT, not 3 (h 1 2)", "node/NAME -h'"),
        ("h:1", "two operands are needed", "HOST and PORT are words of their own"),
        ("-z -- -l h 1", "two operands are needed", "options stand before --"),
        ("--intreface eth0 h 1", "no such option: --intreface", "did you mean --interface?"),
        ("--no-such h 1", "no such option: --no-such", "node/NAME -h'"),
        ("--context=c h 1", "no such option: --context=c", "--context of `kubectl ebpfnet` before"),
        ("h 1 -n ns", "no such option: -n", "put -n of `kubectl ebpfnet` before node/NAME"),
        ("h 1 --timeout 9s", "no such option: --timeout", "--timeout of `kubectl ebpfnet` before"),
        ("h 1 --keep", "no such option: --keep", "--keep of `kubectl ebpfnet` before"),
        ("h 1 -k", "-k is for -l", "node/NAME -h'"),
        ("h 1 -p", "-p needs a port", "node/NAME -h'"),
        ("-i -d h 1", "-i needs the name of a device, and -d is an option", ""),
        ("h 1 -d=2", "-d=2: this option is true or false", ""),
        ("h 1 -w 0", "-w 0: a number of seconds above 0 is needed", ""),
        ("h 1 -p 70000", "-p 70000: a number from 0 to 65535 is needed", ""),
        ("h 1 --mark x", "--mark x: a number from 0 to 4294967295 is needed", ""),
        ("h 1 -i a/b", "-i a/b: no device has such a name", ""),
        ("h 1 --source h", "--source h: the IP address of one host is needed", ""),
        ("h 1 --via n2", "--via n2: the IP address or MAC of one host is needed", "--via node/n2"),
        ("h 1 --via pod/x", "--via pod/x: not a node", "e.g. --via node/n2"),
        ("h 1 --via node/", "--via 'node/': the name is missing", "e.g. --via node/n2"),
        ("h 1 --pcap -", "--pcap needs a file: stdout is what the peer sends", ""),
        ("h 1 --pcap=", "--pcap= needs a file", ""),
        ("-4 -6 h 1", "-4 and -6 exclude each other: leave one of them out", ""),
        ("-6 1.1.1.1 1", "-6 and HOST 1.1.1.1 are of different IP versions; one is needed", ""),
        ("-l -z h 1", "with -l, HOST and PORT are what is bound: leave out -z", ""),
        ("h 1 --exec ls", "--exec needs -- before the program: --exec -- CMD...", ""),
        ("-l h 1 --exec -- ls", "--exec connects by itself: leave out -l", ""),
        ("h 70000", "PORT 70000: a number from 1 to 65535 is needed", ""),
        ("h no-such", "PORT no-such: a number from 1 to 65535 is needed, or the name of a tcp", ""),
        ("pod/web 80", "HOST pod/web: an IP address or a name is needed", ""),
        ("0.0.0.0 80", "HOST 0.0.0.0 is for -l: a peer's address is needed", ""),
    ],
)
def test_wrong_words_are_refused_before_the_cluster_is_asked(cluster, given, why, do):
    done = run(*argv(cluster, "node/n1", *given.split()))
    assert (done.returncode, done.stdout) == (2, "")
    error, *hints = done.stderr.splitlines()
    assert error.startswith("error: netkat: ")
    assert why in error
    assert do in hints[0]
    assert hints[-1].startswith("See 'kubectl ebpfnet netkat ")
    assert [hint[:6] for hint in hints[:-1]] in ([], ["hint: "])
    assert cluster.server.seen == []


def test_a_word_that_no_api_server_takes_is_refused(cluster):
    code, _, err = said(cluster, "node/n1", "h", "1", "--exec", "--", "printf", "\udcff")
    assert (code, b"not UTF-8" in err) == (2, True)
    assert cluster.server.seen == []


def test_flags_of_ours_are_none_of_netkats():
    for flag in (*kubectl_flags.CONNECTION, *with_flags.NODES):
        for spelling in flag.spellings:
            with pytest.raises(UsageError, match="no such option"):
                netkat.parse([spelling, "h", "1"])


def test_errors_of_our_own_words():
    for words, why in (
        (["pod/x", "h", "1"], "runs on a node"),
        (["-l", "node/n1", "h", "1"], "unknown flag: -l"),
        (["--timeout", "soon", "node/n1", "h", "1"], "not a duration"),
        ([], "NODE is missing"),
    ):
        done = run("netkat", *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert why in done.stderr


@pytest.mark.parametrize("words", [("-h",), ("--help",), ("-lh",), ("h", "1", "-help")])
def test_netkats_own_help(words):
    done = run("netkat", "node/n1", *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout in PAGE.read_text()
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_kubectl_shows_netkats_own_help_too():
    done = through_kubectl("netkat", "node/n1", "-h")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: netkat [options] HOST PORT")


# --- a session ------------------------------------------------------------------------------------


def test_words_on_the_node(cluster):
    cluster.server.program = netkat_is(SHOW)
    words = ["-v", "-w=5", "--via", "node/n2", "fd00::9", "80", "--exec", "--", "sh", "-c"]
    code, out, err = said(cluster, "node/n1", *words, "a 'b'", "-h", "--")
    assert code == 0, err
    assert out == (
        b'["--verbose", "--via=fd00::2", "--wait=5.0", "fd00::9", "80", "--exec", "--", "sh", '
        b'"-c", "a \'b\'", "-h", "--"]'
    )
    execs = [seen for seen in cluster.server.seen if seen.path.endswith("/exec")]
    said_before, words_of_netkat = (session_words(exec_.parameters("command")) for exec_ in execs)
    assert said_before == []
    assert words_of_netkat is not None
    assert words_of_netkat[:2] == ["netkat", frames.OPTION]


def test_bytes_both_ways_and_the_pod_goes(cluster):
    cluster.server.program = netkat_is(CAT)
    text = os.urandom(3_000_000)
    code, out, err = said(cluster, "node/n1", "h", "1", stdin=text)
    assert (code, out) == (0, text)
    assert err.startswith(b"deploying a node pod on n1 (image ")
    assert cluster.below("pods") == []
    assert cluster.below("namespaces") == []


def test_the_pod_may_live_as_long_as_the_session(cluster):
    bodies = []
    cluster.server.program = with_node_side(
        lambda end: (
            bodies.append(cluster.below("pods")[0]["spec"]),
            on_the_node("return 0")(end),
        )
    )
    assert said(cluster, "node/n1", "h", "1")[0] == 0
    assert bodies[0]["activeDeadlineSeconds"] == 24 * 3600
    assert bodies[0]["containers"][0]["command"][-1] == "60"


def test_exit_code_and_stderr_are_netkats(cluster):
    cluster.server.program = netkat_is("os.write(2, b'netkat: refused\\n')\nreturn 1")
    code, out, err = said(cluster, "node/n1", "h", "1")
    assert (code, out, err.splitlines()[-1]) == (1, b"", b"netkat: refused")


def test_a_signal_that_ended_it_is_said(cluster):
    cluster.server.program = netkat_is("os.kill(os.getpid(), 9)\ntime.sleep(60)")
    code, _, err = said(cluster, "node/n1", "h", "1")
    assert code == 137
    assert b"netkat was ended on n1 by signal 9" in err


def test_pcap_is_a_file_here(cluster, tmp_path):
    path = f"/proc/self/fd/{frames.PCAP_FD}"
    body = f"assert '--pcap={path}' in words\nos.write(os.open('{path}', os.O_WRONLY), b'p' * 9)"
    cluster.server.program = netkat_is(f"{body}\nreturn 0")
    file = tmp_path / "a.pcap"
    code, _, err = said(cluster, "node/n1", "h", "1", "--pcap", str(file))
    assert code == 0, err
    assert file.read_bytes() == b"p" * 9
    code, _, err = said(cluster, "node/n1", "h", "1", "--pcap", str(tmp_path / "no" / "file"))
    assert code == 1
    assert b"cannot write --pcap" in err


def test_a_terminal_types_lines_and_ends(cluster):
    cluster.server.program = netkat_is(f"assert '--terminal' in words\n{CAT}")
    ours, theirs = pty.openpty()
    with session(cluster, "node/n1", "h", "1", stdin=theirs) as process:
        os.close(theirs)
        assert process.stdout is not None
        for line in (b"one\n", b"two\n"):
            os.write(ours, line)
            assert process.stdout.readline() == line
        os.write(ours, b"\x04")  # Ctrl-D
        assert process.wait(20) == 0
    os.close(ours)


@pytest.mark.parametrize("stdin", ["< /dev/null", "<&-"])
def test_no_stdin(cluster, stdin):
    cluster.server.program = netkat_is("return 7 if os.read(0, 9) == b'' else 1")
    words = " ".join(argv(cluster, "node/n1", "h", "1"))
    done = subprocess.run(
        ["sh", "-c", f"{PROGRAM} {words} {stdin}"],
        env=environment(), capture_output=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (7, b"")


# --- ends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_it_at_once(cluster, number, code):
    started: list[subprocess.Popen[bytes]] = []
    cluster.server.program = netkat_is("os.write(1, b'.')\ntime.sleep(60)", started)
    with session(cluster, "node/n1", "h", "1") as process:
        assert process.stdout is not None
        assert process.stdout.read(1) == b"."
        begin = time.monotonic()
        process.send_signal(number)
        assert process.wait(20) == code
        assert time.monotonic() - begin < 5
    assert started[0].wait(10) == 128 + signal.SIGTERM
    assert cluster.below("namespaces") == []


def test_a_killed_client_ends_it(cluster):
    started: list[subprocess.Popen[bytes]] = []
    cluster.server.program = netkat_is("os.write(1, b'.')\ntime.sleep(60)", started)
    with session(cluster, "node/n1", "h", "1") as process:
        assert process.stdout is not None
        assert process.stdout.read(1) == b"."
        process.kill()
        assert started[0].wait(10) == 128 + signal.SIGTERM


def test_nobody_reads_stdout_any_more(cluster):
    cluster.server.program = netkat_is("while True: os.write(1, b'x' * 4096)")
    with session(cluster, "node/n1", "h", "1") as process:
        assert process.stdout is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.wait(20) == 141
    assert cluster.below("namespaces") == []


def test_errors_before_it_starts(cluster):
    done = run(*argv(cluster, "node/n9", "h", "1"))
    assert (done.returncode, done.stdout) == (1, "")
    assert 'node "n9" not found' in done.stderr
    done = run(*argv(cluster, "node/n1", "--via", "node/n1", "fd00::9", "80"))
    assert done.returncode == 1
    assert "no InternalIP with an IPv6 address" in done.stderr
    assert not [seen for seen in cluster.server.seen if seen.method == "POST"]


def test_the_time_limit_bounds_what_the_api_server_is_asked(cluster):
    release = threading.Event()

    def slow(seen):
        if seen.path == "/api/v1/nodes/n1":
            release.wait(60)

    cluster.refuses = slow
    done = run(*argv(cluster, "--timeout", "300ms", "node/n1", "h", "1"))
    release.set()
    assert done.returncode == 1
    assert "0.3 s" in done.stderr


def test_a_pod_without_our_node_side_is_sent_it_first(cluster):
    brought, steps = bytearray(), []

    def program(end):
        words = session_words(end.argv)
        steps.append(words[:1] if words is not None else "bring")
        if words is None:
            brought.extend(b"".join(end.stdin()))
            end.end()
        elif words:
            on_the_node("return 0")(end)
        else:
            requests(end)
            answer(end, OURS if brought else NONE)

    cluster.server.program = program
    code, _, err = said(cluster, "node/n1", "h", "1")
    assert (code, steps) == (0, [[], "bring", [], ["netkat"]]), err
    assert bytes(brought) == sides.packed()


@pytest.mark.parametrize(
    ("code", "words", "why"),
    [
        (1, b"it cannot be unpacked into /run/ebpfnet: No space left on device\n",
         "could not be sent to ebpfnet-RUN/node-1 (node): exit code 1: it cannot be unpacked"),
        (127, b"", "ebpfnet-RUN/node-1 (node) has no python3; the node side needs 3.11 or later"),
        (0, b"", "ebpfnet-RUN/node-1 (node): the node side that was sent does not start"),
        (0, b"x" * (1 << 20), "more than 65536 bytes"),
    ],
)  # fmt: skip
def test_a_node_side_that_cannot_be_sent_is_said(cluster, code, words, why):
    def program(end):
        if session_words(end.argv) is None:
            assert b"".join(end.stdin()) == sides.packed()
            end.write(2, words)
            end.end(exited(code))
        else:
            requests(end)
            answer(end, NONE)

    cluster.server.program = program
    exit_code, _, err = said(cluster, "node/n1", "h", "1")
    assert exit_code == 1
    assert why in re.sub("ebpfnet-[0-9a-f]{8}", "ebpfnet-RUN", err.decode())
    assert cluster.below("namespaces") == []


def test_the_help_is_short():
    assert len(run("netkat", "-h").stdout.splitlines()) < 80


# --- a dry run ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "asked"), [("client", []), ("server", ["/api/v1/namespaces"])])
def test_a_dry_run_creates_nothing(cluster, tmp_path, how, asked):
    before, pcap = dict(cluster.objects), tmp_path / "x"
    words = (f"--dry-run={how}", "node/n1", "--pcap", str(pcap), "-z", "1.1.1.1", "80")
    done = run(*argv(cluster, *words))
    assert (done.returncode, done.stdout) == (0, "")
    namespace, pod, netkat_line = done.stderr.splitlines()
    assert namespace.startswith("namespace/ebpfnet-")
    assert namespace.endswith(f" created ({'server ' if how == 'server' else ''}dry run)")
    assert pod == "pod/node-1 created on n1 (dry run)"
    assert netkat_line.startswith("netkat -z --pcap=")
    assert netkat_line.endswith(" 1.1.1.1 80 on n1 (dry run)")
    assert cluster.objects == before
    assert [path for path in cluster.asked("POST") if "review" not in path] == asked
    assert not pcap.exists()


def test_a_dry_run_deploys_on_no_node_that_starts_no_pod(cluster):
    cluster.node("n1", ready=False)
    done = run(*argv(cluster, "--dry-run=client", "node/n1", "1.1.1.1", "80"))
    assert done.returncode == 1
    assert "no node pod can start on n1: not Ready since " in done.stderr
    assert "dry run" not in done.stderr


def test_a_dry_run_says_who_may_not(cluster):
    def refuses(seen):
        return status_reply(403, "Forbidden", "no") if seen.method == "POST" else None

    cluster.refuses = refuses
    done = run(*argv(cluster, "--dry-run=server", "node/n1", "1.1.1.1", "80"))
    assert done.returncode == 1
    assert "this user may not create namespaces" in done.stderr
    assert "(tier deploy, kubectl ebpfnet doctor --print-rbac=deploy)" in done.stderr
