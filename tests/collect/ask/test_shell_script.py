"""The batch script under real shells, and the cutting of its streams."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_ebpfnet.capture import spool
from kubectl_ebpfnet.collect.ask import script, shell_script, unasked
from kubectl_ebpfnet.collect.ask.question import NEWEST, Question
from kubectl_ebpfnet.collect.ask.shell_script import Splitter, records, script_argv
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.evidence import LineCounts, PlaceKind, Record, pod_place
from kubectl_ebpfnet.model.fact import Fact, Form
from kubectl_ebpfnet.model.protocol.questions import FlowFilter

PLACE = pod_place("default", "x")
NONCE = "0123456789abcdef"
SHELLS = {
    "dash": ["dash"],
    "busybox": ["busybox", "sh"],
    "bash": ["bash", "--posix"],
    "mksh": ["mksh"],
}


@pytest.fixture(params=SHELLS, ids=list(SHELLS))
def shell(request: pytest.FixtureRequest) -> list[str]:
    words: list[str] = SHELLS[request.param]
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    return words


def run(
    shell: Sequence[str],
    asked: Sequence[Question],
    seconds: int = 20,
    env: dict[str, str] | None = None,
    trusted: bool = True,
    second: Sequence[Question] = (),
) -> list[Record]:
    nonce = shell_script.new_nonce()
    argv = script_argv(asked, nonce, seconds, 1, trusted=trusted, second=second)
    asked = [*asked, *second]
    assert argv[0] == "sh"
    done = subprocess.run(
        [*shell, *argv[1:]], input=script.SCRIPT, capture_output=True, timeout=60, env=env
    )
    assert done.returncode == 0
    out, err = split(done.stdout, done.stderr, nonce)
    assert out.rest().read() == b""
    return list(records(asked, out, err, started="t", seconds=seconds, hang_seconds=1))


def split(stdout: bytes, stderr: bytes, nonce: str) -> tuple[Splitter, Splitter]:
    """Both streams of a script that has ended, cut at their marks."""
    out, err = Splitter(nonce), Splitter(nonce)
    out.feed(stdout)
    err.feed(stderr)
    return out, err


DEVICE_FILTERS = Question(q.TC_FILTERS, PLACE)


def one(*argv: str, kept: tuple[Any, ...] = ()) -> Question:
    """A question of one form; `kept` filters its lines, by words that need not be addresses."""
    fact = Fact("one", str, (PlaceKind.POD,), asked=(Form("", argv),))
    return Words(fact, PLACE, flows=tuple(FlowFilter(address=word) for word in kept))


class Words(Question):
    """A question whose rules are the words of its flows."""

    @property
    def line_rules(self) -> str:
        return super().line_rules if self.rows else "\n".join(self.needles)


def first_of(*forms: tuple[str, ...]) -> Question:
    """A question of several forms."""
    asked = tuple(Form("", form) for form in forms)
    return Question(Fact("first", str, (PlaceKind.POD,), asked=asked), PLACE)


# --- under real shells --------------------------------------------------------------------------


def test_every_byte_comes_back_on_its_own_stream(shell: list[str], tmp_path: Path) -> None:
    data = bytes(range(256)) * 300 + b"no newline at the end"
    (tmp_path / "data").write_bytes(data)
    said = run(
        shell,
        [
            one("cat", str(tmp_path / "data")),
            one("sh", "-c", "printf out; printf 'err\\n' >&2; exit 3"),
            one("true"),
            one("printf", "\\n"),
        ],
    )
    assert [r.exit_code for r in said] == [0, 3, 0, 0]
    assert [r.stdout.read() for r in said] == [data, b"out", b"", b"\n"]
    assert [r.stderr for r in said] == [b"", b"err\n", b"", b""]
    assert {r.place for r in said} == {PLACE}
    assert {r.started for r in said} == {"t"}


def test_no_word_is_read_by_the_shell(shell: list[str], tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    hostile = [
        f"$(touch {trap})",
        f"`touch {trap}`",
        f"; touch {trap}",
        f"' ; touch {trap} ; '",
        f'" ; touch {trap} ; "',
        f"\n touch {trap}\n",
        "*",
        "${1}",
        "\\",
        "",
        "-n",
        "é\x1b[31m",
        "@",
        "n",
        "$T",
    ]
    (said,) = run(shell, [one("printf", "<%s>", *hostile)])
    assert said.stdout.read() == "".join(f"<{word}>" for word in hostile).encode()
    assert said.argv == ("printf", "<%s>", *hostile)
    assert not trap.exists()


def test_more_words_than_nine(shell: list[str]) -> None:
    words = [str(n) for n in range(40)]
    (said,) = run(shell, [one("printf", "%s ", *words)])
    assert said.stdout.read().split() == [word.encode() for word in words]


def test_the_next_form_is_tried_when_one_fails(shell: list[str]) -> None:
    said = run(
        shell,
        [
            first_of(("no-such-program-here", "x"), ("sh", "-c", "exit 4"), ("echo", "third")),
            first_of(("echo", "first"), ("echo", "never")),
            first_of(("false",), ("false",)),
            one("echo", "last"),
        ],
    )
    assert [(r.argv[-1], r.exit_code) for r in said] == [
        ("x", 127),
        ("exit 4", 4),
        ("third", 0),
        ("first", 0),
        ("false", 1),
        ("false", 1),
        ("last", 0),
    ]
    assert said[0].why_not() == "exit code 127: no-such-program-here: not found"


def test_only_wanted_lines_come_and_the_exit_code_stays(shell: list[str]) -> None:
    text = "10.0.0.1 a\n10.0.0.10 b\n10x0.0.1 c\n10.0.0.2 [d]*\n"
    program = ("sh", "-c", 'printf "%s" "$0"; echo oops >&2; exit 5', text)
    said = run(
        shell,
        [
            one(*program, kept=("10.0.0.1",)),
            one(*program, kept=("[d]*", "10x")),
            one(*program, kept=("nothing",)),
            one("echo", "all"),
        ],
    )
    assert [r.stdout.read() for r in said] == [
        b"10.0.0.1 a\n10.0.0.10 b\n",
        b"10.0.0.2 [d]*\n10x0.0.1 c\n",  # by rule, then as they came
        b"",
        b"all\n",
    ]
    assert [r.exit_code for r in said] == [5, 5, 5, 0]
    assert [r.stderr for r in said] == [b"oops\n"] * 3 + [b""]
    assert [r.line_filter for r in said] == [("10.0.0.1",), ("[d]*", "10x"), ("nothing",), ()]


def test_of_many_lines_the_newest_come_and_the_rest_is_counted(
    shell: list[str], tmp_path: Path
) -> None:
    address, peer, most = ip_address("10.0.0.1"), ip_address("1.1.1.1"), NEWEST
    flows = (FlowFilter(address=address, peer=peer, peer_port=80, protocol=6),)
    beside = (FlowFilter(address=address, protocol=6),)
    line = "{} OUT 10.0.0.1:{} -> {} expires=9 LastRxReport={} LastTxReport={} RevNAT=0\n"
    others = [line.format("TCP", n, "2.2.2.2:80", 0, n) for n in range(1000, 1000 + 3 * most)]
    wanted = line.format("TCP", 7, "1.1.1.1:80", 3, 2)
    table = [*others[:most], wanted, *others[most:]]
    table += [line.format("UDP", 7, "1.1.1.1:80", 3, 2), "TCP OUT 10.0.0.2:1 -> 1.1.1.1:80 x\n"]
    (tmp_path / "ct").write_text("".join(table))
    asked = Question(one("cat", str(tmp_path / "ct")).fact, PLACE, flows=flows, beside=beside)
    (said,) = run(shell, [asked])
    first, *rest = said.stdout.read().decode().splitlines(keepends=True)
    assert first == wanted
    assert sorted(rest) == sorted(others[-most:])
    assert (said.left_out, said.beside_left_out) == (0, 2 * most)
    assert said.line_filter == ("10.0.0.1",)
    assert said.counts == LineCounts(tcp4=3 * most + 2, other4=1)


def test_entries_are_counted_by_kind_and_those_to_the_destination(
    shell: list[str], tmp_path: Path
) -> None:
    end = FlowFilter(ip_address("10.0.0.1"), None, ip_address("1.1.1.1"), 80, 6)
    taken = "TCP OUT 10.0.0.{}:4000 -> 1.1.1.1:80 XLATE_SRC 172.30.0.11:4{} Created=9sec ago\n"
    lines = [taken.format(n % 9, n) for n in range(30)]
    lines += [
        "TCP IN 1.1.1.1:80 -> 172.30.0.11:40 XLATE_DST 10.0.0.1:4000 Created=9sec ago\n",
        "TCP OUT 10.0.0.1:1 -> 1.1.1.1:8080 XLATE_SRC 172.30.0.11:41 Created=9sec ago\n",
        "UDP OUT 10.0.0.1:1 -> 1.1.1.1:80 XLATE_SRC 172.30.0.11:41 Created=9sec ago\n",
        "TCP OUT [fd00::1]:1 -> [fd00::2]:80 XLATE_SRC [fd00::11]:41 Created=9sec ago\n",
        "ICMPv6 OUT [fd00::1]:1 -> [fd00::2]:0 XLATE_SRC [fd00::11]:41 Created=9sec ago\n",
        "ipv4 2 tcp 6 9 SYN_SENT src=10.0.0.1 dst=1.1.1.1 sport=9 dport=80 [UNREPLIED] x\n",
        "\n",
    ]
    (tmp_path / "nat").write_text("".join(lines))
    printed = one("cat", str(tmp_path / "nat")).fact
    six = replace(end, address=ip_address("fd00::1"), peer=ip_address("fd00::2"))
    for name, flow, sought in (
        (q.NAT.name, end, 30),
        (q.NAT.name, six, 1),
        (q.CONNTRACK.name, end, 1),
        (q.CT.name, end, 0),
    ):
        (said,) = run(shell, [Question(replace(printed, name=name), PLACE, flows=(flow,))])
        assert said.counts == LineCounts(tcp4=32, tcp6=1, other4=2, other6=1, sought=sought)


IPCACHE = """IP PREFIX/ADDRESS   IDENTITY
0.0.0.0/0           identity=2 encryptkey=0 tunnelendpoint=0.0.0.0, flags=<none>
{many}
10.0.1.9/32         identity=7 encryptkey=0 tunnelendpoint=172.30.0.12, flags=<none>
10.0.1.90/32        identity=8 encryptkey=0 tunnelendpoint=172.30.0.12, flags=<none>
10.0.1.9/32@3       identity=9 encryptkey=0 tunnelendpoint=172.30.0.13, flags=<none>
10.2.0.0/16         identity=16777217 encryptkey=0 tunnelendpoint=0.0.0.0, flags=<none>
2001:db8::/32       identity=16777218 encryptkey=0 tunnelendpoint=0.0.0.0, flags=<none>
fd00::1/128         identity=10 encryptkey=0 tunnelendpoint=0.0.0.0, flags=<none>
fd00::12/128        identity=11 encryptkey=0 tunnelendpoint=0.0.0.0, flags=<none>
"""
FRONTENDS = """SERVICE ADDRESS           BACKEND ADDRESS (REVNAT_ID) (SLOT)
{many}
10.0.1.9:80/TCP (0)       0.0.0.0:0 (3) (0) [ClusterIP, non-routable]
10.0.1.9:80/TCP/i (1)     10.0.1.5:8080/TCP (3) (1)
10.0.1.90:80/TCP (0)      0.0.0.0:0 (4) (0) [ClusterIP, non-routable]
10.0.1.9:81                10.0.1.5:81 (5)
                          10.0.1.6:81 (5)
10.0.1.90:81               10.0.1.5:81 (6)
                          10.0.1.6:81 (6)
[fd00::1]:80/TCP (0)      [::]:0 (7) (0) [ClusterIP, non-routable]
[fd00::12]:80/TCP (0)     [::]:0 (8) (0) [ClusterIP, non-routable]
"""


GATEWAYS = """Source IP    Destination CIDR   Egress IP     Gateway
{many}
10.0.1.9     1.1.1.0/24         172.30.0.77   0 => 172.30.0.11
                                              1 => 172.30.0.13
10.0.1.90    1.1.1.0/24         172.30.0.77   0 => 172.30.0.11
                                              1 => 172.30.0.12
fd00::1      2001:db8::/32      fd00::77      172.30.0.11
fd00::12     2001:db8::/32      fd00::77      172.30.0.12
"""


@pytest.mark.parametrize("awk", [("mawk",), ("busybox", "awk"), ("gawk",)], ids=" ".join)
def test_of_a_table_of_addresses_rows_of_others_stay_there(
    shell: list[str], tmp_path: Path, awk: tuple[str, ...]
) -> None:
    if shutil.which(awk[0]) is None:
        pytest.skip(f"{awk[0]} is not installed")
    (tmp_path / "awk").write_text(f'#!/bin/sh\nexec {" ".join(awk)} "$@"\n')
    (tmp_path / "awk").chmod(0o755)
    many = "\n".join(f"10.9.0.{n}/32 identity={n}" for n in range(200))
    (tmp_path / "ipcache").write_text(IPCACHE.format(many=many))
    many = "\n".join(f"10.9.0.{n}:80/TCP (0) 0.0.0.0:0 (9) (0) [ClusterIP]" for n in range(200))
    (tmp_path / "lb").write_text(FRONTENDS.format(many=many))
    rows = (ip_address("10.0.1.9"), ip_address("fd00::1"))
    many = "\n".join(f"10.9.0.{n}     1.1.1.0/24   0.0.0.0   172.30.0.12" for n in range(200))
    (tmp_path / "egress").write_text(GATEWAYS.format(many=many))
    names = ("ipcache", "lb", "egress")
    asked = [replace(one("cat", str(tmp_path / name)), rows=rows) for name in names]
    ipcache, lb, egress = run(shell, asked, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})

    assert ipcache.line_filter == lb.line_filter == ("10.0.1.9", "fd00::1")
    firsts = [line.split()[0] for line in ipcache.stdout.read().decode().split("\n") if line]
    own = [word for word in firsts if not word.startswith("10.9.0.")]
    assert own == ["IP", "0.0.0.0/0", "10.0.1.9/32", "10.0.1.9/32@3", "10.2.0.0/16",
                   "2001:db8::/32", "fd00::1/128"]  # fmt: skip
    sample = len(firsts) - len(own)
    assert 0 < sample < 20
    assert ipcache.left_out == 200 - sample + 2
    told = [line for line in lb.stdout.read().decode().split("\n") if line[:7] != "10.9.0."]
    assert [line.split()[0] for line in told if line] == [
        "SERVICE", "10.0.1.9:80/TCP", "10.0.1.9:80/TCP/i", "10.0.1.9:81", "10.0.1.6:81",
        "[fd00::1]:80/TCP"]  # fmt: skip
    assert (lb.exit_code, lb.counts) == (0, LineCounts(other4=200 + 7, other6=2))
    told = [line for line in egress.stdout.read().decode().split("\n") if line[:7] != "10.9.0."]
    assert [line.split()[0] for line in told if line] == ["Source", "10.0.1.9", "1", "fd00::1"]


def policy_maps(*ids: int) -> str:
    """What an agent prints of the policy maps of endpoints."""
    key = {"Prefixlen": 40, "Identity": 2, "TrafficDirection": 1}
    blocks = [{"EndpointID": str(n), "Path": f"/x/{n}", "Content": [{"Key": key}]} for n in ids]
    return json.dumps(blocks, indent=2) + "\n\n"


@pytest.mark.parametrize(
    ("headers", "kept"),
    [
        ((7, "10.0.1.9", 2), {7, 1, 8, 99}),
        ((12, "10.0.1.9", 2), {12, 1, 8, 99}),  # the last one with a header
        ((7, "10.0.1.90", 2), {7, 12, 5, 1, 8, 99}),  # of none of them: all come
    ],
)
@pytest.mark.parametrize("awk", [("mawk",), ("busybox", "awk"), ("gawk",)], ids=" ".join)
def test_of_a_list_of_endpoints_those_with_other_addresses_stay_there(
    monkeypatch: pytest.MonkeyPatch, shell: list[str], tmp_path: Path, awk: tuple[str, ...],
    headers: tuple[int, str, int], kept: set[int],
) -> None:  # fmt: skip
    if shutil.which(awk[0]) is None:
        pytest.skip(f"{awk[0]} is not installed")
    (tmp_path / "awk").write_text(f'#!/bin/sh\nexec {" ".join(awk)} "$@"\n')
    (tmp_path / "awk").chmod(0o755)
    own, address, _ = headers
    others = {7: "10.0.1.8", 12: "10.0.1.19", 5: "10.0.1.95", 1: "", 8: ""}
    for number, other in others.items():
        (tmp_path / f"{number}").mkdir()
        lines = [f" * IPv4 address: {address if number == own else other}",
                 f" * Identity: {number if number in (1, 8) else 2550}"]  # fmt: skip
        (tmp_path / f"{number}" / "ep_config.h").write_text("/*\n" + "\n".join(lines) + "\n */\n")
    state = script.SCRIPT.replace(b"/var/run/cilium/state", str(tmp_path).encode())
    monkeypatch.setattr(script, "SCRIPT", state)
    printed = policy_maps(7, 12, 1, 5, 8, 99)
    (tmp_path / "maps").write_text(printed)
    asked = one("cat", str(tmp_path / "maps"))
    rows = (ip_address("10.0.1.9"), ip_address("fd00::1"))
    asked = Question(replace(asked.fact, by_endpoint=True), PLACE, rows=rows)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    (said,) = run(shell, [asked], env=env)
    text = said.stdout.read().decode()
    assert {int(block["EndpointID"]) for block in json.loads(text)} == kept
    assert (said.exit_code, said.left_out) == (0, 6 - len(kept))
    assert said.line_filter == (("10.0.1.9", "fd00::1") if len(kept) < 6 else ())
    if len(kept) == 6:
        assert text == printed
    (untrusted,) = run(shell, [asked], env=env, trusted=False)
    assert (untrusted.left_out, len(json.loads(untrusted.stdout.read()))) == (0, 6)


@pytest.mark.parametrize(
    ("newer", "older"),
    [
        ("TCP OUT 10.0.0.1:1 -> b XLATE_SRC c Created=9sec ago", "10.0.0.1 Created=99sec"),
        ("ipv4 2 tcp 6 300 ESTABLISHED src=10.0.0.1", "ipv4 2 tcp 6 20 SYN_SENT src=10.0.0.1"),
        ("TCP OUT 10.0.0.1:1 -> b expires=99", "TCP OUT 10.0.0.1:1 -> b expires=9"),
    ],
)
def test_what_newest_means(shell: list[str], tmp_path: Path, newer: str, older: str) -> None:
    for name, lines in (("a", (newer, older)), ("b", (older, newer))):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
        asked = replace(one("cat", str(tmp_path / name), kept=("10.0.0.1",)), newest=1)
        (said,) = run(shell, [asked])
        assert (said.stdout.read().decode().strip(), said.left_out) == (newer, 1)


def agent_image(tmp_path: Path, *, timeout: bool = True) -> dict[str, str]:
    """An image whose agent hangs: `bpf` commands answer."""
    program = tmp_path / "cilium-dbg"
    program.write_text(
        '#!/bin/sh\necho "$*" >>"$0.ran"\necho noise >&2\n'
        '[ "$1" = bpf ] || exec sleep 30\nsleep 0.3\necho "$*"\n'
    )
    program.chmod(0o755)
    if timeout:
        return {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    for name in ("sh", "sleep", "cat", "echo", "printf"):
        (tmp_path / name).symlink_to(shutil.which(name) or "")
    return {"PATH": str(tmp_path)}


@pytest.mark.parametrize(
    ("timeout", "most", "why"),
    [
        (True, 1, "the agent hangs"),
        (False, 1, "the agent hangs"),
        (True, 3, "--timeout leaves no more"),  # a short --timeout is no sign of anything
    ],
)
def test_an_agent_that_hangs_costs_one_limit(
    shell: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    timeout: bool,
    most: int,
    why: str,
) -> None:
    if not timeout and shell[0] == "busybox":
        pytest.skip("BusyBox's shell brings its own timeout")
    monkeypatch.setattr(shell_script, "HANG_SECONDS", most)
    env = agent_image(tmp_path, timeout=timeout)
    shell = [shutil.which(shell[0]) or "", *shell[1:]]
    status, listed = one("cilium-dbg", "status"), one("cilium-dbg", "endpoint", "list")
    maps = one("cilium-dbg", "bpf", "lb", "list")
    begun = time.monotonic()
    said = run(shell, [maps, status, listed], env=env, second=[maps])
    assert time.monotonic() - begun < 30  # as long as the agent would take
    assert [record.error for record in said] == [
        "", f"it did not answer within 1 s: {why}", f"not asked: {why}", "",
    ]  # fmt: skip
    assert [record.stdout.read() for record in said] == [
        b"bpf lb list\n",
        b"",
        b"",
        b"bpf lb list\n",
    ]
    assert [unasked.hangs(record) for record in said] == [False, most == 1, most == 1, False]
    assert (tmp_path / "cilium-dbg.ran").read_text().count("endpoint") == 0


def test_lanes_run_beside_each_other(shell: list[str], tmp_path: Path) -> None:
    """Each program waits for one of the other lane, then both say more than one write holds."""
    program = tmp_path / "cilium-dbg"
    program.write_text(
        '#!/bin/sh\n: >"$0.$2"\n'
        'for n in $(seq 200); do [ -e "$0.$3" ] && break; sleep 0.05; done\n'
        '[ -e "$0.$3" ] || exit 9\n'
        'echo "$2"; yes "noise of $2" | head -n 2000 >&2\n'
    )
    program.chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    maps = [one("cilium-dbg", "bpf", *pair) for pair in ("02", "13", "20", "31")]
    missing = first_of(("no-such-program",), ("printf", "x\\000y"))
    said = run(shell, [*maps[:2], missing], env=env, second=[*maps[2:], missing])
    assert [record.exit_code for record in said] == [0, 0, 127, 0] * 2
    assert [record.stdout.read() for record in said] == [
        b"0\n", b"1\n", b"", b"x\0y", b"2\n", b"3\n", b"", b"x\0y",
    ]  # fmt: skip
    noise = [b"noise of %d\n" % number * 2000 for number in range(4)]
    missed = [b"no-such-program: not found\n", b""]
    assert [record.stderr for record in said] == [*noise[:2], *missed, *noise[2:], *missed]


def test_what_a_pods_image_calls_bpftool_does_not_stay_behind(
    shell: list[str], tmp_path: Path
) -> None:
    fake = tmp_path / "bpftool"
    fake.write_text("#!/bin/sh\nexec sleep 50\n")
    fake.chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    begun = time.monotonic()
    (said,) = run(shell, [one("bpftool", "net")], seconds=1, env=env, trusted=False)
    assert time.monotonic() - begun < 20
    # GNU's timeout says 124, BusyBox's that the command was terminated.
    assert not said.ok
    assert said.why_not()


def test_without_awk_and_timeout_all_lines_come(tmp_path: Path) -> None:
    # busybox would bring its own awk; dash has nothing but what PATH gives.
    if shutil.which("dash") is None:
        pytest.skip("dash is not installed")
    for name in ("cat", "sh"):
        (tmp_path / name).symlink_to(shutil.which(name) or "")
    (tmp_path / "data").write_text("a\nb\n")
    question = one("cat", str(tmp_path / "data"), kept=("a",))
    dash = shutil.which("dash") or ""
    (said,) = run([dash], [question], env={"PATH": str(tmp_path)})
    assert said.stdout.read() == b"a\nb\n"
    assert said.line_filter == ()
    assert said.exit_code == 0


def test_commands_do_not_eat_each_others_input(shell: list[str]) -> None:
    said = run(shell, [one("cat"), one("echo", "still here")])
    assert [r.stdout.read() for r in said] == [b"", b"still here\n"]


def test_a_command_that_does_not_end_is_ended(shell: list[str]) -> None:
    said = run(shell, [one("sleep", "600"), one("echo", "next")], seconds=1)
    assert said[0].exit_code in (None, 143)  # BusyBox before 1.36 says 143
    if said[0].exit_code is None:
        assert said[0].error == "it did not end within 1 s"
    assert said[1].stdout.read() == b"next\n"


def test_tc_is_asked_about_every_device(
    shell: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = {"eth0", "cilium_host", "lxc1", "rc-node2"}
    for name in (*devices, "lo", "lxc2"):
        (tmp_path / "net" / name).mkdir(parents=True)
    (tmp_path / "net" / "bonding_masters").touch()
    elsewhere = script.SCRIPT.replace(b"/sys/class/net", str(tmp_path / "net").encode())
    monkeypatch.setattr(script, "SCRIPT", elsewhere)
    tc = tmp_path / "tc"
    tc.write_text(
        '#!/bin/sh\n[ "$1" = qdisc ] && echo "qdisc clsact ffff: dev lxc1 parent ffff:"\n'
    )
    tc.chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    said = run(shell, [one("echo", "before"), DEVICE_FILTERS, one("echo", "after")], env=env)
    assert said[0].argv == ("echo", "before")
    assert said[-1].argv == ("echo", "after")
    assert {r.argv for r in said[1:-1]} == {
        ("tc", "filter", "show", "dev", name, way)
        for name in devices
        for way in ("ingress", "egress")
    }


# --- cutting ------------------------------------------------------------------------------------


def stream(parts: Sequence[tuple[bytes, int, int, str]]) -> bytes:
    marks = (b"%s\n%s %d %d 0%s\n" % (data, NONCE.encode(), index, code, extra.encode())
             for data, index, code, extra in parts)  # fmt: skip
    return b"".join(marks)


outputs = st.one_of(
    st.binary(max_size=80),
    # Outputs that look like marks, but cannot be: this run's nonce is not to be known.
    st.sampled_from([b"\n" + NONCE[:-1].encode(), b"\n\n\n", b"\n0123 1 0 0\n", NONCE.encode()]),
)


@given(
    st.lists(st.tuples(outputs, st.integers(0, 255), st.sampled_from(["", " ingress eth0"]))),
    st.binary(max_size=30),
    st.lists(st.integers(1, 40), min_size=1),
)
def test_any_bytes_in_any_pieces_come_back(
    said: list[tuple[bytes, int, str]], rest: bytes, sizes: list[int]
) -> None:
    parts = [(data, n, code, extra) for n, (data, code, extra) in enumerate(said, start=1)]
    whole = stream(parts) + rest
    splitter = Splitter(NONCE)
    at = turn = 0
    while at < len(whole):
        size = sizes[turn % len(sizes)]
        splitter.feed(whole[at : at + size])
        at, turn = at + size, turn + 1
    assert [
        (s.output.read(), s.index, s.exit_code, " ".join(("", *s.device)).rstrip())
        for s in splitter.sections
    ] == parts
    assert splitter.rest().read() == rest


@given(st.binary(max_size=200), st.integers(0, 200))
def test_even_this_runs_nonce_in_an_output_breaks_nothing(noise: bytes, at: int) -> None:
    mark = b"\n" + NONCE.encode() + b" "
    out, err = split(noise[:at] + mark + noise[at:], mark + noise, NONCE)
    asked = [one("a"), DEVICE_FILTERS, first_of(("b",), ("c",))]
    for record in records(asked, out, err, error="cut"):
        assert record.argv


def test_a_cut_stream_gives_what_ended_and_what_was_cut() -> None:
    asked = [
        first_of(("a", "1"), ("a", "2")),
        first_of(("b", "1"), ("b", "2")),
        DEVICE_FILTERS,
        one("c"),
    ]

    def cut(parts: list[tuple[bytes, int, int, str]], rest: bytes) -> list[Record]:
        out, err = split(stream(parts) + rest, stream(parts[:-1]) + b"E", NONCE)
        return list(records(asked, out, err, error="it broke", denied="d"))

    (only,) = cut([], b"half")
    assert (only.argv, only.exit_code, only.error) == (("a", "1"), None, "it broke")
    assert (only.stdout.read(), only.stderr, only.denied) == (b"half", b"E", "d")
    done, late = cut([(b"x", 1, 0, "")], b"ha")
    assert (done.argv, done.exit_code, done.stdout.read()) == (("a", "1"), 0, b"x")
    assert late.argv == ("b", "1")
    assert cut([(b"x", 1, 1, "")], b"")[-1].argv == ("a", "2")
    assert cut([(b"x", 3, 1, "")], b"")[-1].argv == ("b", "2")
    assert cut([(b"x", 4, 1, "")], b"")[-1].argv == ("tc", "filter", "show", "dev")
    assert cut([(b"x", 5, 0, " ingress eth0")], b"")[-1].argv == ("tc", "filter", "show", "dev")
    assert cut([(b"x", 6, 0, "")], b"")[-1].argv == ("c",)


# --- long outputs -------------------------------------------------------------------------------


def test_a_long_output_goes_to_an_unnamed_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "MEMORY_LIMIT", 1000)
    data = os.urandom(300_000)
    splitter = Splitter(NONCE, lambda: spool.Spool(tmp_path))
    whole = stream([(b"short", 1, 0, ""), (data, 2, 0, "")])
    for at in range(0, len(whole), 700):
        splitter.feed(whole[at : at + 700])
    short, long = splitter.sections
    assert short.output.read() == b"short"
    assert isinstance(long.output, spool.Spooled)
    assert long.output.read() == data == b"".join(long.output.chunks())
    assert os.listdir(tmp_path) == []
