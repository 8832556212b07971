"""`show-record` prints what a number in `path -o wide` points to."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from kubectl_ebpfnet.capture.write import write_bundle
from kubectl_ebpfnet.model.evidence import InMemory, Record, agent_place, bundle_of
from kubectl_ebpfnet.render.text.record import text
from tests.cli.console import run

DROPPED = ("--from", "demo:dropped")


def test_the_record_of_a_wide_line() -> None:
    wide = run("path", "pod/client", "1.1.1.1:7777", *DROPPED, "-o", "wide").stdout
    (number,) = re.findall(r"~ route .*\n?.*record (\d+)\]", wide)
    proof = run("path", "pod/client", "1.1.1.1:7777", *DROPPED, "-v").stdout
    assert f"[{number}] $ ip route   (pod default/client)\n" in proof
    done = run("show-record", number, *DROPPED)
    assert (done.returncode, done.stderr) == (0, "")
    head, _, output = done.stdout.partition("\n\n")
    assert head.startswith(f"record {number} of demo:dropped\nplace    pod default/client\n")
    assert "\ncommand  ip route\nended    exit code 0, started 2026-11-30T" in head
    assert output.startswith("default via 10.44.0.235 dev eth0 mtu 1450 \n")


def test_every_number_of_a_wide_answer_is_a_record() -> None:
    wide = run("path", "pod/client", "svc/web", "--from", "demo", "-o", "wide").stdout
    said = re.sub(r"\s+", " ", wide)
    numbers = {n for group in re.findall(r"record ([\d,]+)\]", said) for n in group.split(",")}
    assert len(numbers) > 10
    for number in numbers:
        assert run("show-record", number, "--from", "demo").returncode == 0


def test_an_output_is_printed_as_it_was_and_obeyed_by_no_terminal(tmp_path: Path) -> None:
    file, data = str(tmp_path / "x.zip"), b"  a\tb\n\x1b[31mred\r\n\xff\n"
    argv = ("cilium-dbg", "x y", "\x1b[2J")
    record = Record(0, agent_place("n1"), argv, 1, InMemory(data), stderr=b"no\x07\n")
    write_bundle(file, [record])
    done = run("show-record", "1", "--from", file)
    assert done.returncode == 0
    assert "\nplace    cilium-agent on n1\ncommand  cilium-dbg 'x y' '\\x1b[2J'\n" in done.stdout
    assert "\n\n  a\tb\n\\x1b[31mred\n\\xff\n\nstderr:\nno\\x07\n" in done.stdout


def test_a_program_reads_it_as_a_document(tmp_path: Path) -> None:
    file = str(tmp_path / "x.zip")
    record = Record(0, agent_place("n1"), ("ip", "route"), 1, InMemory(b"a\x1b[2J\xff\n"), b"no")
    write_bundle(file, [record])
    done = run("show-record", "1", "--from", file, "-o", "json")
    assert json.loads(done.stdout) == {
        "schema": "ebpfnet.dev/record/v1", "number": 1,
        "where": {"kind": "cilium-agent", "node": "n1"}, "argv": ["ip", "route"], "exit_code": 1,
        "stdout": "a\x1b[2J\\xff\n", "stderr": "no",
    }  # fmt: skip
    assert "\x1b" not in done.stdout
    assert run("show-record", "1", "--from", file, "-o", "jsonpath={.stderr}").stdout == "no"
    assert (
        "schema: ebpfnet.dev/record/v1\n"
        in run("show-record", "1", "--from", file, "-o", "yaml").stdout
    )


def test_no_line_is_wider_than_the_terminal() -> None:
    record = Record(7, agent_place("n1"), ("ip", "x" * 90), 0, InMemory(b"a\tb " * 30 + b"\nc\n"))
    shown = text(record, bundle_of([record], "case.zip"), 40).splitlines()
    assert max(map(len, shown)) <= 40
    first, *more, last = shown[shown.index("") + 1 :]
    assert (first.split()[:2], last) == (["a", "b"], "c")
    assert all(line.startswith("    ") for line in more)
    assert "a\tb " * 30 in text(record, bundle_of([record], "case.zip"), 0)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("16",), 2, "hint: capture first"),
        (("0", *DROPPED), 1, "no record 0 in demo:dropped\nhint: it has records 1 to "),
        (("99999", *DROPPED), 1, "no record 99999 in demo:dropped"),
        (("-o", *DROPPED), 2, "error: "),
        (("1", "-o", "wide", *DROPPED), 2, "unable to match a printer suitable for"),
        (("x", *DROPPED), 2, "'x' is no number of a record"),
        (("1" * 5000, *DROPPED), 2, "is no number of a record"),
    ],
)
def test_what_is_no_record(words: tuple[str, ...], code: int, says: str) -> None:
    done = run("show-record", *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr
