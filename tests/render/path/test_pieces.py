"""Wrapping, colour and phrases, piece by piece."""

from __future__ import annotations

import io
import shlex
import subprocess
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_ebpfnet.model.conntrack import ConntrackEntry
from kubectl_ebpfnet.model.evidence import InMemory, Record, agent_place, bundle_of
from kubectl_ebpfnet.model.net import ICMP, Flow
from kubectl_ebpfnet.model.path import Entrance, Evidence, Finding, Fix, Path, Return, Severity
from kubectl_ebpfnet.render.path import phrases
from kubectl_ebpfnet.render.path.entries import entries
from kubectl_ebpfnet.render.path.formats import render
from kubectl_ebpfnet.render.text.evidence import Proofs, proof
from kubectl_ebpfnet.render.text.style import color_enabled
from kubectl_ebpfnet.render.text.view import View
from kubectl_ebpfnet.render.text.wrap import columns, command, wrap
from tests.render.path import sample_paths as sample


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("mode", "stream", "environ", "coloured"),
    [
        ("auto", Terminal(), {}, True),
        ("auto", io.StringIO(), {}, False),
        ("auto", Terminal(), {"TERM": "dumb"}, False),
        ("auto", Terminal(), {"NO_COLOR": "1"}, False),
        ("auto", Terminal(), {"NO_COLOR": ""}, True),
        ("auto", io.StringIO(), {"FORCE_COLOR": "1"}, True),
        ("auto", Terminal(), {"FORCE_COLOR": "0"}, False),
        ("auto", io.StringIO(), {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ("always", io.StringIO(), {"NO_COLOR": "1", "TERM": "dumb"}, True),
        ("never", Terminal(), {"FORCE_COLOR": "1"}, False),
    ],
)
def test_colour(mode, stream, environ, coloured):
    assert color_enabled(mode, stream, environ) is coloured


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("one two three", 0, ["one two three"]),
        ("one two three", 7, ["one two", "three"]),
        ("", 5, [""]),
        ("abcdefgh", 3, ["abc", "def", "gh"]),
        ("kube-system/cilium-x7k2p", 14, ["kube-system/", "cilium-x7k2p"]),
        ('{"dst":"10.244.1.160:36768"}', 18, ['{"dst":', '"10.244.1.160:', '36768"}']),
        ("ns-a/name-b/10.244.1.160:36768", 20, ["ns-a/name-b/", "10.244.1.160:36768"]),
        ("漢字漢字 漢字", 5, ["漢字", "漢字", "漢字"]),
        ("漢字", 1, ["漢", "字"]),
        ("e\u0301e\u0301e\u0301 b", 5, ["e\u0301e\u0301e\u0301 b"]),
        ("a verylongwordindeed b", 8, ["a", "verylong", "wordinde", "ed b"]),
    ],
)
def test_wrap(text, width, lines):
    assert wrap(text, width) == lines


@given(st.text(alphabet="ab /.-", max_size=80), st.integers(1, 30))
def test_wrap_keeps_the_width_and_every_letter(text, width):
    lines = wrap(text, width)
    assert all(len(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_columns():
    texts = ["abc → ✓", "漢字", "e\u0301", "ｱ😀", ""]
    assert [columns(text) for text in texts] == [7, 4, 1, 3, 0]


def test_a_note_in_any_language_keeps_within_the_terminal():
    note = "流量在升级之后被丢弃;" * 12
    bundle = bundle_of(sample.bundle().records, note=note)
    for name in ("table", "wide"):
        text = render(sample.dropped(), bundle, name, View(40))
        assert max(map(columns, text.splitlines())) <= 40


COMMANDS = [
    "kubectl exec -n kube-system cilium-x -- tc filter show dev 'a  b  c d e f g h i j k l'",
    "kubectl delete -n aaaaaaaaaaaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb pod x",
    r"""printf %s 'it'"'"'s $(id)' "a \" b" c\ d '' | cat""",
    "ip neigh del 192.0.2.1 dev '$(touch x; echo `id`)'",
]


@pytest.mark.parametrize("text", COMMANDS)
@pytest.mark.parametrize("width", [0, 20, 30, 40, 80])
def test_a_command_in_lines_is_the_same_words_for_a_shell(text, width):
    lines = command("  ", text, width)
    assert len(lines) == 1 or width
    argv = subprocess.run(
        ["sh", "-c", "printf '%s\\0' " + "\n".join(lines).replace("| cat", "'|' cat")],
        capture_output=True, check=True,
    ).stdout.decode().split("\0")[:-1]  # fmt: skip
    assert argv == shlex.split(text)


def test_the_ends_in_one_line():
    assert phrases.ends_of(sample.delivered()) == "pod/client → 1.1.1.1:80/TCP"
    assert phrases.ends_of(sample.dropped()) == (
        "pod/client → svc/web in prod [fd00:10:96::10]:80/TCP"
    )


def test_an_end_without_an_address():
    path = sample.empty()
    assert phrases.ends_of(path) == "pod/late → 1.1.1.1/ICMP"
    there = replace(path.destination, text="no.example", kind="name", address=None)
    assert phrases.ends_of(replace(path, destination=there)) == "pod/late → no.example (ICMP)"


def test_conntrack_of_icmp():
    one, other = ip_address("10.0.0.1"), ip_address("1.1.1.1")
    flow = Flow(ICMP, one, 77, other, None)
    assert phrases.netfilter(ConntrackEntry(flow, flow.reversed()), flow) == "tracked"
    outside = ip_address("192.0.2.1")
    masked = ConntrackEntry(flow, Flow(ICMP, other, None, outside, 77), 29)
    assert phrases.netfilter(masked, flow) == "reply 1.1.1.1 → 192.0.2.1, expires in 29s"


def test_proof_quotes_the_bundle_where_the_evidence_does_not():
    data = b"first\nsecond\tline\n" * 10
    record = Record(0, agent_place("n1"), ("cat", "/proc/net/route"), 0, InMemory(data))
    bundle = bundle_of([record])
    assert proof([Evidence(1, (2, 11))], bundle, "  ") == [
        "  [1] $ cat /proc/net/route   (cilium-agent on n1)",
        "     2  second  line",
        "    11  first",
    ]
    assert proof([Evidence(1)], bundle, "")[1:] == []
    assert proof([Evidence(9)], bundle, "") == ["record 9 is not in live"]


def test_a_table_shows_the_newest_flows_of_a_node_and_wide_shows_all():
    path = sample.delivered()
    path = replace(path, flows=path.flows * 5)
    for view in (View(80), View(140), View()):
        text = render(path, sample.bundle(), "table", view)
        assert text.count("\n   10.244.1.160:36768 → 1.1.1.1:80 as 172.30.0.12:36768") == 2
        assert "\n   3 more (-o wide)\n" in text
    assert render(path, sample.bundle(), "wide", View()).count("SeenNonSyn") == 5


def test_the_only_node_that_a_client_enters_by_is_not_said_twice() -> None:
    path = sample.outside()
    assert path.outside is not None
    one = Entrance("as --via says", path.outside.shown, path.outside.entries[:1])
    alone = entries(replace(path, outside=one), View(width=80))
    assert alone == [f"Enters  {one.entries[0].node}: as --via says"]


def table(path: Path, width: int = 80, *, evidence: bool = False) -> str:
    return render(path, sample.bundle(), "table", View(width, evidence=evidence))


def test_a_tuple_stands_beside_its_hop_or_below_where_there_is_no_room():
    flow = "172.30.0.12:36768 → 1.1.1.1:80"
    [line] = [line for line in table(sample.delivered(), 120).splitlines() if flow in line[20:]]
    assert line.startswith(" ✓ snat ")
    narrow = table(sample.delivered(), 60).splitlines()
    assert " " * 15 + flow in narrow


def test_what_the_verdict_is_is_said_once_and_other_errors_always():
    other = Finding(Severity.ERROR, "node kind-worker is on fire", "Put it out.")
    path = sample.dropped()
    text = table(replace(path, findings=(*path.findings, other)))
    assert "policy denies the flow" not in text  # cause and fix say it
    assert "\nERROR    node kind-worker is on fire\n         Put it out.\n" in text
    assert "policy denies the flow" not in table(path, evidence=True)
    assert "ERROR    policy denies the flow" in render(path, sample.bundle(), "wide", View(80))


def test_the_way_back_is_a_line_where_it_is_as_it_should_be():
    path = sample.delivered()
    assert path.answer is not None
    usual = replace(path.answer, asymmetric=False, way="the same nodes and devices")
    text = table(replace(path, answer=usual))
    assert "\n ~ way back    the same nodes and devices\n" in text
    assert "receives the answer" not in text
    lost = replace(path.answer, state=Return.LOST, reason="it is dropped at kind-worker")
    text = table(replace(path, answer=lost))
    assert "\nWay back, lost: other devices than the packet" in text
    assert "\n  it is dropped at kind-worker\npod default/client" in text
    assert "receives the answer" in text


def test_nothing_stands_for_what_is_not_there():
    path = replace(sample.delivered(), findings=(), flows=(), answer=None, fix=None, cause="")
    text = table(path)
    for word in (
        "Cause",
        "Seen",
        "Fix",
        "ERROR",
        "WARNING",
        "INFO",
        "flows",
        "way back",
        "Way back",
    ):
        assert word not in text


def test_a_command_goes_on_behind_a_backslash():
    fix = Fix("Do it.", "kubectl ebpfnet path pod/a-very-long-name-of-a-pod 10.244.1.160:36768")
    lines = table(replace(sample.dropped(), fix=fix), 60).splitlines()
    at = lines.index("Fix     Do it.")
    assert lines[at + 1].endswith(" \\")
    assert lines[at + 2].strip() == "10.244.1.160:36768"
    assert max(map(len, lines)) <= 60


def test_a_commands_record_is_named_once_and_a_block_keeps_its_indentation():
    data = b'{\n  "a": {\n    "b": 1,\n    "c": 2\n  }\n}\n'
    bundle = bundle_of([Record(0, agent_place("n1"), ("show", "-o", "json"), 0, InMemory(data))])
    proofs = Proofs(bundle, View(80))
    lines = proofs.lines([Evidence(1, (2, 3, 4, 5), ('"a": {', '"b": 1,', '"c": 2', "}"))], "")
    assert lines[0] == "[1] $ show -o json   (cilium-agent on n1)"
    assert lines[1:] == ['  2  "a": {', '  3    "b": 1,', '  4    "c": 2', "  5  }"]
    assert proofs.lines([Evidence(1, (3,), ('"b": 1,',))], "") == ["[1]", '  3  "b": 1,']


def test_a_line_that_is_cut_says_so():
    bundle = bundle_of([Record(0, agent_place("n1"), ("cat",), 0, InMemory(b"x" * 500))])
    [_, line] = proof([Evidence(1, (1,), ("x" * 400,))], bundle, "")
    assert line == f"  1  {'x' * 400}…"
