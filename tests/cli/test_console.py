"""The console entry as a person meets it: errors, exit codes, pipes, interrupts."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import kubectl_ebpfnet
from kubectl_ebpfnet.cli import app
from tests.cli.console import PROGRAM, SECONDS, environment, run, run_process


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("pth", "unknown command 'pth' for 'kubectl ebpfnet'\nhint: did you mean `kubectl ebp"),
        ("zzz", "unknown command 'zzz'"),
        ("--nope", "unknown flag: --nope"),
        ("path", "SOURCE is missing\nhint: e.g. path pod/client 1.1.1.1:80"),
        ("path pod/x", "DESTINATION is missing"),
        ("path pod/x 1.1.1.1 more", "unexpected argument: more\nSee 'kubectl ebpfnet path --h"),
        ("path pod/x pod/y 80/udp 1", "unexpected argument: 80/udp\nhint: a port is written with"),
        ("path pod pod svc", "unexpected argument: svc"),
        ("netkat node n1 1.1.1.1 80", "netkat runs on a node\nhint: e.g. node/n1"),
        ("path pod/x 1.1.1.1 --protocl udp", "unknown flag: --protocl\nhint: did you mean --proto"),
        ("options --dry-run", "unknown flag: --dry-run\nSee 'kubectl ebpfnet options --help' for"),
        ("path pod/x 1.1.1.1 --dry-run=foo", 'Invalid dry-run value (foo). Must be "none", "ser'),
        ("cleanup --dry-run=", 'Invalid dry-run value (). Must be "none", "server", or "client".'),
        ("probe-lb web --from node/n1", "hint: the sending node is --from-node node/n1"),
        ("path pod/x 1.1.1.1 --from demo --node-access foo", "--node-access 'foo': no such mode"),
        ("probe-lb web --from demo --keep --node-access none", "no node pod is deployed that"),
        ("capture pod/x -o json", "hint: e.g. -o case.zip; -o ./json for a file of this name"),
        ("probe-lb web --from demo --verify-policies", "it needs a cluster, not --from"),
        ("path pod/x 1.1.1.1 --from=", "--from is empty\nhint: leave --from out"),
        ("flows pod/x --from=", "--from is empty"),
        ("flows pod/x --to=", "--to is empty"),
        ("programs pod/x --from=", "--from is empty"),
        ("doctor --from=", "--from is empty"),
        ("probe-lb web --from=", "--from is empty"),
        ("probe-lb web --from-node=", "--from-node is empty"),
        ("probe-lb web -o html -w", "-o html is one page of one run"),
        ("path pod/x 1.1.1.1 --to-namespace=", "--to-namespace is empty"),
        ("path pod/x 1.1.1.1 --node-access=", "--node-access is empty"),
        ("path pod/x 0.0.0.0:80", "'0.0.0.0' is no host's address"),
        ("path pod/x 80/udp", "is a port without an address"),
        ("path pod/x pod/y -4 -6", "-4 and -6: a packet has one IP version"),
        ("path pod/x 1.1.1.1 -6", "-6: 1.1.1.1 is an IPv4 address"),
        ("path -n shop default/x 1.1.1.1", "-n shop and pod/x in default: two namespaces"),
        ("path pod/x 1.1.1.1 -o", "flag needs a value: -o"),
        ("path pod/x 1.1.1.1 -o xml", "output format \"xml\", allowed formats are: dot,"),
        ("path pod/x 1.1.1.1 --color=purple", "--color 'purple'"),
        ("path pod/x 1.1.1.1 --protocol dccp", "one of: tcp, udp, sctp, icmp"),
        ("path pod/x 1.1.1.1 --timeout soon", "--timeout 'soon' is not a duration"),
        ("path pod/x 1.1.1.1 --request-timeout soon", "--request-timeout 'soon' is not a duration"),
        ("path pod/x 1.1.1.1 -v=many", "-v 'many' is not a number"),
        ("path pod/x.prod/y 1.1.1.1", "give the namespace with -n"),
        ("path x.prod 1.1.1.1", "use -n: pod/x -n prod"),
        ("path pod/x 1.1.1.1:99999", "'99999' is not a port"),
        ("path pod/x 1.1.1.1:80 --protocol icmp", "ICMP has no ports"),
        ("capture -o x -f y", "-o and -f: a capture is one file"),
        ("capture -o= pod/x", "--output is empty"),
        ("capture -o x svc/web", "capture takes a pod or node"),
        ("version -o xml", "no such format\nhint: one of: json, yaml"),
    ],
)  # fmt: skip
def test_wrong_command_lines(words, says):
    done = run(*words.split())
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_hostile_words_are_shown_and_not_obeyed():
    done = run("path", "pod/\x1b[2J\u202e", "1.1.1.1")
    assert done.returncode == 2
    assert "\x1b" not in done.stderr
    assert "\u202e" not in done.stderr
    assert "x1b" in done.stderr


def test_version():
    done = run("version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"kubectl-ebpfnet {kubectl_ebpfnet.__version__} ")
    assert run("--version").stdout == done.stdout
    said = json.loads(run("version", "-o=json").stdout)
    assert said["version"] == kubectl_ebpfnet.__version__
    assert yaml.safe_load(run("version", "-o", "yaml").stdout) == said
    assert run("version", "--client", "--context=x").stdout == done.stdout
    source = Path(kubectl_ebpfnet.__file__).parent
    code = "".join(file.read_text() for file in source.rglob("*.py"))
    assert said["schemas"] == sorted(set(re.findall(r'"(ebpfnet\.dev/[a-z-]+/v\d+)"', code)))


def test_no_kubeconfig():
    done = run("path", "pod/x", "1.1.1.1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "/nonexistent/kubeconfig" in done.stderr
    assert "--kubeconfig" in done.stderr


def test_unreachable_server():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        done = run("path", "pod/x", "1.1.1.1", f"--server=https://127.0.0.1:{port}")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert f"127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_such_capture():
    done = run("path", "pod/x", "1.1.1.1", "--from", "/nonexistent/case.zip")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: no such capture: /nonexistent/case.zip\n"
        "hint: a capture is made by `kubectl ebpfnet capture -o FILE`; built in are demo, "
        "demo:dropped, demo:unknown\n"
    )


def test_a_node_that_is_given_as_a_capture():
    done = run("probe-lb", "web", "--from", "n1.example")
    assert (done.returncode, done.stdout) == (1, "")
    assert "hint: the sending node is --from-node n1.example; a capture is made" in done.stderr
    assert "--from-node" not in run("probe-lb", "web", "--from", "case.zip").stderr


def test_a_sender_that_no_capture_knows():
    done = run("probe-lb", "web-lb-local", "--from", "demo", "--from-node", "node9")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == 'error: node "node9" not found\nhint: nodes there are: node1, node2\n'


def test_the_notes_on_a_probe_stand_together():
    lines = run("probe-lb", "web-lb-local", "--from", "demo").stdout.splitlines()
    notes = [number for number, line in enumerate(lines) if line.startswith("NOTE  ")]
    assert len(notes) == 3
    assert notes == list(range(notes[0], len(lines)))


def test_which_pod_stands_for_a_workload():
    for command in ("flows", "programs"):
        done = run(command, "deploy/web", "--from", "demo")
        assert "deployment/web: taking pod/web-7c469c57c9-8p62k, the one pod of Dep" in done.stderr
        assert "taking" not in run(command, "pod/client", "--from", "demo").stderr


def test_watching_a_capture_says_that_it_does_not_change():
    done = run("flows", "pod/client", "--from", "demo", "-w")
    assert done.returncode == 0
    assert "-w has no effect with --from: a capture does not change\n" in done.stderr


def test_a_port_that_is_given_as_a_flag():
    done = run("path", "pod/client", "1.1.1.1", "--port", "80", "--from", "demo")
    assert done.returncode == 2
    assert "hint: the port stands behind the destination: svc/web:80" in done.stderr


def test_a_selector_that_no_pod_fits():
    done = run("path", "-l", "app=x", "1.1.1.1", "--from", "demo")
    assert done.returncode == 1
    assert done.stderr.startswith("error: no pod in namespace default has the labels app=x\n")


def test_a_nodes_name_in_place_of_a_pods_and_of_a_selector():
    done = run("flows", "node1", "--from", "demo")
    assert "hint: did you mean node/node1?\n" in done.stderr
    done = run("probe-lb", "web-lb-local", "--nodes", "node1", "--from", "demo")
    assert "hint: the node itself is --nodes kubernetes.io/hostname=node1\n" in done.stderr


def test_doctor_of_a_capture_in_which_nobody_was_asked():
    """No node pod failed: none was tried; and the remedy is a capture."""
    done = run("doctor", "--from", "demo:unknown")
    assert done.returncode == 3
    assert "failed" not in done.stdout
    assert "nothing on the node was asked  a new capture with --node-access pod\n" in done.stdout


# --- the program, started -------------------------------------------------------------------------


def test_the_console_entry_is_what_other_tests_call():
    """Data, errors and exit codes: as `run` says that they are."""
    for words in (
        ("version",),
        ("path", "pod/x", "1.1.1.1"),
        ("pth",),
        ("path", "pod/\udcff", "x"),
    ):
        started, called = run_process(*words), run(*words)
        assert (started.returncode, started.stdout, started.stderr) == (
            called.returncode,
            called.stdout,
            called.stderr,
        )


def test_a_call_leaves_nothing_for_the_next():
    def state():
        handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
        return os.getcwd(), dict(os.environ), sys.stdin, sys.stdout, sys.stderr, handlers

    before = state()
    assert run("version", env={"FORCE_COLOR": "1"}).returncode == 0
    assert run("pth").returncode == 2
    assert state() == before


# --- the end of a run -----------------------------------------------------------------------------


def test_a_reader_that_leaves_early():
    # `version | head -c 0`: the pipe has no reader before a byte is written.
    ours, theirs = os.pipe()
    os.close(ours)
    with os.fdopen(theirs, "wb") as gone:
        done = subprocess.run(
            [PROGRAM, "options"],
            stdout=gone,
            stderr=subprocess.PIPE,
            env=environment(),
            timeout=SECONDS,
            check=False,
        )
    assert (done.returncode, done.stderr) == (141, b"")


def test_head():
    done = subprocess.run(
        f"{PROGRAM} options | head -1",
        shell=True,
        capture_output=True,
        encoding="utf-8",
        env=environment(),
        timeout=SECONDS,
        check=False,
    )
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_a_full_disk():
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [PROGRAM, "options"],
            stdout=full,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env=environment(),
            timeout=SECONDS,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "error: cannot write the answer: No space left on device\n"


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_a_destructor_is_not_lost(number, slow):
    """Python drops what is raised in a destructor; here it drops the signal's exception. On a slow
    machine it comes again while the hook that sends it again has not ended."""
    script = f"""
import signal, threading, time
from kubectl_ebpfnet.cli import app

if {slow}:
    start = threading.Thread.start
    def start_slowly(thread):
        start(thread)
        signal.raise_signal({int(number)})
    threading.Thread.start = start_slowly

class Dropped:
    def __del__(self):
        signal.raise_signal({int(number)})

def run(words):
    Dropped()
    time.sleep({SECONDS})
    return 0

app._run = run
raise SystemExit(app.main([]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True, encoding="utf-8", timeout=SECONDS, env=environment(), check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (128 + number, "")
    assert done.stderr in ("error: interrupted\n", "error: terminated\n")


def test_ctrl_c_ends_a_watch_quietly():
    """By a command: typer makes an exit of its own, which is told, of each KeyboardInterrupt."""
    script = """
import signal
from kubectl_ebpfnet.cli import app, path_arguments, watching

looks = iter(["an answer\\n"])

def text():
    return next(looks, None) or signal.raise_signal(signal.SIGINT)

path_arguments.answered = lambda *_: watching.emit_repeatedly(text, seconds=0)
app.main(["path", "pod/x", "1.1.1.1:80"])
"""
    done = run_process("-c", script, program=(sys.executable,))
    assert (done.returncode, done.stdout, done.stderr) == (130, "an answer\n", "")


@pytest.mark.parametrize(
    ("number", "code", "says"),
    [
        (signal.SIGINT, 130, "error: interrupted\n"),
        (signal.SIGTERM, 143, "error: terminated\n"),
    ],
)
def test_a_signal_while_a_silent_server_is_asked(number, code, says):
    """The server accepts and never answers, so the program is surely waiting when it is told."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        silent.settimeout(SECONDS)
        server = f"--server=http://127.0.0.1:{silent.getsockname()[1]}"
        with subprocess.Popen(
            [PROGRAM, "path", "pod/x", "1.1.1.1", server],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env=environment(),
        ) as process:
            connection, _ = silent.accept()
            with connection:
                connection.settimeout(SECONDS)
                assert connection.recv(16).startswith(b"GET ")
                process.send_signal(number)
                out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out, err) == (code, "", says)


@pytest.mark.parametrize(
    ("words", "debug", "traced"),
    [
        ([], "", False),
        (["-v"], "", False),
        (["-v=9"], "", True),
        (["--v", "10"], "", True),
        ([], "1", True),
    ],
)
def test_a_bug_is_one_line_unless_asked(monkeypatch, words, debug, traced):
    monkeypatch.setattr(app, "_run", lambda words: 1 / 0)
    done = run("path", *words, env={"EBPFNET_DEBUG": debug} if debug else {})
    assert (done.returncode, done.stdout) == (1, "")
    assert "error: internal error: ZeroDivisionError: division by zero\n" in done.stderr
    assert ("Traceback" in done.stderr) is traced


# --- what is imported -----------------------------------------------------------------------------

IMPORTED = """
import sys
from kubectl_ebpfnet.cli import app
code = app.main(sys.argv[1:])
rooms = ("parse", "explain", "cluster", "collect", "render", "model")
names = ["kubernetes", "tabulate", "yaml", "pydantic", "rich", "websocket", "pyroute2"]
names += [f"kubectl_ebpfnet.{room}" for room in rooms]
print(*[name for name in names if name in sys.modules], file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        ("--help", {"kubectl_ebpfnet.model"}),
        ("", {"kubectl_ebpfnet.model"}),
        ("version", {"kubectl_ebpfnet.model"}),
        ("path --help", {"kubectl_ebpfnet.model", "kubectl_ebpfnet.render"}),
        ("path x", {"kubectl_ebpfnet.model", "kubectl_ebpfnet.render"}),
    ],
)
def test_only_what_is_needed_is_imported(words, allowed):
    done = run_process(*words.split(), program=(sys.executable, "-c", IMPORTED))
    assert set(done.stderr.splitlines()[-1].split()) <= allowed


def test_typer_is_still_as_command_py_takes_it():
    """If typer's coercion moves, the program works on, but 60 ms slower: then look here."""
    from typer.core import TyperOption

    assert hasattr(TyperOption, "get_runtime_param")


def test_every_command_file_is_short():
    folder = Path(kubectl_ebpfnet.__file__).parent / "cli/commands"
    for command in app.COMMANDS:
        file = folder / f"{command.replace('-', '_')}.py"
        lines = file.read_text(encoding="utf-8").count("\n")
        assert lines <= 80, f"{file} has {lines} lines"
