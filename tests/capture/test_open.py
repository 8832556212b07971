"""Every form of a capture gives the same bundle, and what is no capture is one clear error."""

from __future__ import annotations

import errno
import io
import json
import os
import stat
import struct
import subprocess
import sys
import tempfile
import tracemalloc
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_ebpfnet.capture import jsonl as bundle_lines
from kubectl_ebpfnet.capture import record as record_form
from kubectl_ebpfnet.capture import zip as zip_bundle
from kubectl_ebpfnet.capture.open import open_bundle, read_stream
from kubectl_ebpfnet.capture.write import write_bundle
from kubectl_ebpfnet.cluster.pool import Pool
from kubectl_ebpfnet.errors import BundleError, ParseError
from kubectl_ebpfnet.model.evidence import (
    API,
    CLIENT,
    Bundle,
    InMemory,
    Record,
    agent_place,
    node_place,
    pod_place,
)
from kubectl_ebpfnet.model.matching import matching_lines

SCENARIOS = Path(__file__).parent.parent / "scenarios"

RECORDS = [
    Record(1, API, ("get", "pods"), 0, InMemory(b'{"kind": "List"}'), b"", "2026-11-21T05:20:00Z"),
    Record(2, agent_place("node1"), ("ip", "a"), 1, InMemory(b""), b"Error: \xff\x1b[31m\n"),
    Record(3, pod_place("default", "x"), ("ip", "a"), None, error="no shell", denied="create x"),
    Record(
        4,
        node_place("n"),
        ("cat", "t"),
        0,
        InMemory(b"\x00\xffa\r\nb"),
        line_filter=("10.0.0.1", "é"),
    ),
    Record(5, CLIENT, ("resolve", "a b"), 0, InMemory(b"x" * 100_000)),
]


def content(bundle: Bundle) -> list[tuple[Any, ...]]:
    return [
        (
            r.number,
            r.place,
            r.argv,
            r.exit_code,
            r.stdout.read(),
            r.stderr,
            r.started,
            r.error,
            r.denied,
            r.line_filter,
        )
        for r in bundle.records
    ]


def jsonl(record: Record) -> str:
    where = {"kind": record.place.kind, "node": record.place.node}
    where |= {"namespace": record.place.namespace, "pod": record.place.pod}
    return json.dumps(
        {
            "where": where,
            "argv": record.argv,
            "exit_code": record.exit_code,
            "stdout": record.stdout.read().decode("utf-8", "surrogateescape"),
            "stderr": record.stderr.decode("utf-8", "surrogateescape"),
            "started": record.started,
            "error": record.error,
            "denied": record.denied,
            "kept": record.line_filter,
            "later": {"versions": "may say more"},
        }
    )


# --- all forms are one ----------------------------------------------------------------------------


def test_zip_folder_and_lines_give_the_same_bundle(tmp_path: Path) -> None:
    expected = content(Bundle(tuple(RECORDS)))
    zipped = tmp_path / "capture.zip"
    assert write_bundle(zipped, RECORDS, "a note") == len(RECORDS)
    bundle = open_bundle(zipped)
    assert content(bundle) == expected
    assert (bundle.note, bundle.source) == ("a note", str(zipped))
    assert stat.S_IMODE(zipped.stat().st_mode) == 0o600

    folder = tmp_path / "folder"
    with zipfile.ZipFile(zipped) as archive:
        archive.extractall(folder)
    assert content(open_bundle(folder)) == expected
    assert content(open_bundle(folder / "bundle.json")) == expected
    assert open_bundle(folder).note == "a note"

    text = "\n".join(["", *map(jsonl, RECORDS), ""])
    lines = tmp_path / "x.jsonl"
    lines.write_text(text)
    assert content(open_bundle(lines)) == expected
    plain = [json.dumps(json.loads(line), ensure_ascii=False) for line in text.split("\n") if line]
    lines.write_text("\n".join(plain), encoding="utf-8", errors="surrogatepass")
    assert content(open_bundle(lines)) == expected

    mixed = tmp_path / "mixed"
    mixed.mkdir()
    (mixed / "bundle.json").write_text('{"schema": "ebpfnet.dev/bundle/v1"}')
    (mixed / "2.jsonl").write_text("\n".join(map(jsonl, RECORDS[2:])))
    (mixed / "1.jsonl").write_text("\n".join(map(jsonl, RECORDS[:2])))
    assert content(open_bundle(mixed)) == expected


@given(
    st.lists(
        st.tuples(
            st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=4),
            st.binary(max_size=200),
            st.binary(max_size=50),
            st.none() | st.integers(0, 255),
            st.lists(st.text(max_size=5), max_size=2),
            st.text(max_size=10),
        ),
        max_size=5,
    )
)
def test_any_record_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, values: list[tuple[Any, ...]]
) -> None:
    records = [
        Record(
            n,
            agent_place("n"),
            tuple(argv),
            code,
            InMemory(out),
            err,
            line_filter=tuple(kept),
            error=error,
        )
        for n, (argv, out, err, code, kept, error) in enumerate(values, start=1)
    ]
    path = tmp_path_factory.mktemp("any") / "x.zip"
    write_bundle(path, records)
    assert content(open_bundle(path)) == content(Bundle(tuple(records)))


def test_a_delta_lies_over_its_base(tmp_path: Path) -> None:
    for name, base, texts in (("one", None, "ab"), ("two", "../one", "c")):
        (tmp_path / name).mkdir()
        index = {"schema": "ebpfnet.dev/bundle/v1"} | ({"base": base} if base else {})
        (tmp_path / name / "bundle.json").write_text(json.dumps(index))
        records = [
            Record(0, CLIENT, ("x", str(n)), 0, InMemory(t.encode())) for n, t in enumerate(texts)
        ]
        (tmp_path / name / "r.jsonl").write_text("\n".join(map(jsonl, records)))
    bundle = open_bundle(tmp_path / "two")
    assert [r.stdout.read() for r in bundle.records] == [b"c", b"b"]
    assert [r.number for r in bundle.records] == [1, 2]


# --- long outputs ---------------------------------------------------------------------------------


def long_text(lines: int) -> bytes:
    return b"".join(
        b'TCP OUT 10.0.%d.%d:1 -> \xc3\xa9 "q" \\n\t\n' % divmod(n, 256) for n in range(lines)
    )


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a few kilobytes a long output, so that these tests need no gigabytes."""
    monkeypatch.setattr(zip_bundle, "PART", 1000)
    monkeypatch.setattr(zip_bundle, "STEP", 300)


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("form", ["zip", "folder"])
def test_a_long_output_is_streamed(tmp_path: Path, form: str) -> None:
    text = long_text(400)
    record = Record(1, agent_place("n"), ("ct",), 0, InMemory(text), text[:600])
    path = tmp_path / "x"
    write_bundle(path, [RECORDS[0], record, record, RECORDS[0]])
    if form == "folder":
        with zipfile.ZipFile(path) as archive:
            archive.extractall(tmp_path / "f")
        path = tmp_path / "f"
    bundle = open_bundle(path)
    assert len(bundle.records) == 4
    for said in bundle.records[1:3]:
        pieces = list(said.stdout.chunks())
        assert len(pieces) > 5
        assert max(map(len, pieces)) <= 1000 or form == "folder"
        assert b"".join(pieces) == said.stdout.read() == text
        assert said.stderr == text[:600]
        needle = b"10.0.1.7:"
        expected = [(n, x) for n, x in enumerate(text.split(b"\n"), 1) if needle in x]
        assert list(matching_lines(said.stdout, [needle])) == expected
    assert bundle.records[3].stdout.read() == RECORDS[0].stdout.read()


@pytest.mark.usefixtures("small_limits")
def test_a_reader_may_stop_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    write_bundle(path, [Record(1, CLIENT, ("ct",), 0, InMemory(long_text(2000)))])
    (record,) = open_bundle(path).records
    chunks = record.stdout.chunks()
    assert isinstance(chunks, Iterator)
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]
    assert record.stdout.read() == long_text(2000)


def test_opening_does_not_read_long_outputs(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    write_bundle(path, [Record(1, CLIENT, ("ct",), 0, InMemory(os.urandom(3 << 20)))])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF  # in the middle of the only long member
    path.write_bytes(data)
    (record,) = open_bundle(path).records
    with pytest.raises(BundleError, match=r"record 1: the file is damaged"):
        record.stdout.read()


# --- what is no capture ---------------------------------------------------------------------------


def fails(path: Path, *words: str) -> None:
    with pytest.raises(BundleError) as caught:
        open_bundle(path)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"hello", "is not a capture"),
        (b"PK\x03\x04 and so on", "damaged"),
        (b"\x1f\x8b\x08\x00packed by gzip", "is not a capture"),
        (b'{"a": 1}\n', "line 1: where is missing"),
        (b"{\n", "line 1: bad JSON"),
        (b'{"where": {"kind": "moon"}, "argv": ["x"]}', "unknown kind of place 'moon'"),
        (b'{"where": {"kind": "api"}, "argv": []}', "argv is missing"),
        (b'{"where": {"kind": "api"}, "argv": [1]}', "argv must be a list of texts"),
        (b'{"where": {"kind": "api", "node": 1}, "argv": ["x"]}', "node must be text"),
        (b'{"where": {"kind": "api"}, "argv": ["x"], "exit_code": "0"}', "exit_code"),
        (b'{"where": {"kind": "api"}, "argv": ["x"], "exit_code": true}', "exit_code"),
        (b'{"where": {"kind": "api"}, "argv": ["x"], "stdout": 5}', "output must be text"),
        (b'{"where": {"kind": "api"}, "argv": ["x"], "stdout": "\\ud800"}', "not Unicode"),
        (b'{"where": {"kind": "api"}, "argv": ["x"], "stdout_file": "/etc/x"}', "must be text"),
        (b'{"a": ' + b"[" * 200_000, "line 1"),
        (b'{"a": "' + b"x" * (2 << 20), "line 1: bad JSON"),
        (b'{"a": [' + b"1," * (1 << 20), "line 1"),
    ],
)
def test_files_that_are_no_capture(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(data)
    fails(path, str(path), words)


def test_the_line_of_a_bad_record_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(f"{jsonl(RECORDS[0])}\n\n{jsonl(RECORDS[1])}\n{{bad\n")
    fails(path, "line 4")


def test_places_that_are_no_file(tmp_path: Path) -> None:
    fails(tmp_path / "missing.zip", "no such capture", "missing.zip")
    fails(tmp_path, "no bundle.json in it")
    (tmp_path / "bundle.json").write_text('{"schema": "ebpfnet.dev/bundle/v2", "records": []}')
    fails(tmp_path, "ebpfnet.dev/bundle/v2", "ebpfnet.dev/bundle/v1")
    (tmp_path / "bundle.json").write_text('{"schema": "other"}')
    fails(tmp_path, "is not a capture")


@pytest.mark.parametrize("form", ["x.zip", "x.jsonl"])
def test_a_pipe_gives_what_the_file_gives(tmp_path: Path, form: str) -> None:
    file = tmp_path / form
    if form == "x.zip":
        write_bundle(file, RECORDS)
    else:
        file.write_text("".join(f"{jsonl(record)}\n" for record in RECORDS))
    reader, writer = os.pipe()
    with ThreadPoolExecutor(1) as pool, open(writer, "wb") as end:
        writing = pool.submit(lambda: (end.write(file.read_bytes()), end.close()))
        bundle = open_bundle(f"/dev/fd/{reader}")
        writing.result()
    os.close(reader)
    assert bundle.source == f"/dev/fd/{reader}"
    for ours, theirs in zip(bundle.records, open_bundle(file).records, strict=True):
        assert (ours.argv, ours.stdout.read()) == (theirs.argv, theirs.stdout.read())


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "a pipe is empty"),
        (b"<html>", "a pipe is not a capture"),
        (b"PK\3\4 and no more", "a pipe: the file is damaged"),
    ],
)
def test_a_pipe_that_gives_no_capture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, says: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(BundleError, match=says):
        read_stream(io.BytesIO(data), "a pipe")
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return b"{" * (size or 1)

    monkeypatch.setattr("kubectl_ebpfnet.capture.open.STREAM_LIMIT", 1 << 20)
    with pytest.raises(BundleError, match="a pipe gives more than"):
        read_stream(Endless(), "a pipe")


def index(**members: object) -> str:
    return json.dumps({"schema": "ebpfnet.dev/bundle/v1", **members})


def record_with(**members: object) -> dict[str, object]:
    return {"where": {"kind": "client"}, "argv": ["x"], "exit_code": 0, **members}


def make_zip(path: Path, members: list[tuple[str | zipfile.ZipInfo, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def symlink(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([], "is not a capture"),
        ([("records/0001.out", b"x")], "has no bundle.json"),
        ([("bundle.json", b"{")], "not JSON"),
        ([("bundle.json", b"[]")], "not a JSON object"),
        ([("bundle.json", b"[" * 100_000)], "not JSON"),
        ([("bundle.json", index(records={}).encode())], "records must be a list"),
        ([("bundle.json", index(records=[1]).encode())], "record 1: a record must be"),
        ([("bundle.json", index(note=1).encode())], "note must be text"),
        ([("bundle.json", index().encode()), ("../x", b"")], "no member called '../x'"),
        ([("bundle.json", index().encode()), ("/etc/passwd", b"")], "no member called"),
        ([("bundle.json", index().encode()), ("records/../x", b"")], "no member called"),
        ([("bundle.json", index().encode()), (symlink("records/1.out"), b"/etc/passwd")], "plain"),
        ([("bundle.json", index().encode())] * 2, "two members are called 'bundle.json'"),
        (
            [("bundle.json", index(records=[record_with(stdout_file="records/1.out")]).encode())],
            "record 1: an output is missing",
        ),
        (
            [("bundle.json", index(records=[record_with(stdout_file="bundle.json")]).encode())],
            "record 1: not a name of an output",
        ),
        (
            [
                (
                    "bundle.json",
                    index(
                        records=[record_with(stdout_file="records/1.out", stdout_lines=[-1])]
                    ).encode(),
                ),
                ("records/1.out", b"x"),
            ],
            "record 1: the lines of its parts",
        ),
        (
            [("bundle.json", index(records=[record_with(stdout_file=[["x"]])]).encode())],
            "record 1: an output's file",
        ),
    ],
)
def test_zips_that_are_no_capture(
    tmp_path: Path, members: list[tuple[str | zipfile.ZipInfo, bytes]], words: str
) -> None:
    fails(make_zip(tmp_path / "x.zip", members), words)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    good = ("bundle.json", index().encode())
    path = make_zip(tmp_path / "x.zip", [good, ("records/1.out", b"\0" * (64 << 20))])
    fails(path, "a bomb")


def test_declared_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [record_with(stdout_file="records/1.out")]
    text = index(records=records).encode()
    path = make_zip(tmp_path / "x.zip", [("bundle.json", text), ("records/1.out", b"x" * 5000)])
    monkeypatch.setattr(zip_bundle, "READ_LIMIT", 4000)
    with pytest.raises(ParseError, match="5000 bytes are too many to be read whole"):
        open_bundle(path).records[0].stdout.read()
    monkeypatch.setattr(record_form, "TOTAL_LIMIT", 4000)
    fails(path, "more than")
    monkeypatch.setattr(bundle_lines, "LINE_LIMIT", 4000)
    lines = tmp_path / "x.jsonl"
    lines.write_text(jsonl(RECORDS[0]) + '\n{"a": "' + "x" * 5000 + '"}')
    fails(lines, "line 2", "or more")


# --- bombs ----------------------------------------------------------------------------------------


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """What is done inside takes no more memory than this at any time."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < size


ZEROS = ("records/1.err", bytes(15 << 20))


@pytest.mark.parametrize(
    "record",
    [
        record_with(stderr_file="records/1.err"),
        record_with(stdout_file="records/1.err"),
        record_with(stdout_file=["records/1.err"] * 45),
    ],
    ids=["stderr", "stdout", "parts"],
)
def test_members_that_records_share_count_as_often_as_they_are_named(
    tmp_path: Path, record: dict[str, object]
) -> None:
    text = index(records=[record] * 45).encode()
    path = make_zip(tmp_path / "x.zip", [("bundle.json", text), ZEROS])
    assert path.stat().st_size < 20_000
    with at_most(4 << 20):
        fails(path, "its records name more than 16 MiB of outputs")


def test_a_long_stderr_is_cut_when_it_is_read(tmp_path: Path) -> None:
    text = index(records=[record_with(stderr_file="records/1.err")]).encode()
    path = make_zip(tmp_path / "x.zip", [("bundle.json", text), ZEROS])
    with at_most(4 << 20):
        (record,) = open_bundle(path).records
    assert record.stderr == bytes(65536) + (
        b"\n[kubectl-ebpfnet left out what is beyond 65536 bytes here]\n"
    )


def test_references_and_records_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def folder(name: str, **members: object) -> Path:
        (tmp_path / name / "records").mkdir(parents=True)
        (tmp_path / name / "records" / "1.out").write_bytes(b"12345")
        (tmp_path / name / "bundle.json").write_text(index(**members))
        return tmp_path / name

    one = record_with(stdout_file="records/1.out")
    parts = record_with(stdout_file=["records/1.out"] * 100_001)
    fails(folder("parts", records=[parts]), "its records name more than 100000 files")
    monkeypatch.setattr(record_form, "RECORD_LIMIT", 3)
    assert len(open_bundle(folder("good", records=[one] * 3)).records) == 3
    many = folder("many", records=[one] * 2)
    (many / "more.jsonl").write_text(f"{jsonl(RECORDS[1])}\n" * 2)
    fails(many, "has more than 3 records")
    fails(folder("over", records=[one] * 2, base="../good"), "has more than 3 records")
    monkeypatch.setattr(record_form, "MEMORY_LIMIT", 1000)
    (many / "more.jsonl").write_text(jsonl(RECORDS[4]))
    fails(many, "its short texts are longer")


@pytest.mark.parametrize("value", [b"[]", b"{}", b'"ab"', b"1.5"])
def test_an_index_of_many_small_values(tmp_path: Path, value: bytes) -> None:
    text = b'{"schema": "ebpfnet.dev/bundle/v1", "later": [1%s]}' % ((b"," + value) * 5_000_000)
    packed = make_zip(tmp_path / "x.zip", [("bundle.json", text)])
    (tmp_path / "bundle.json").write_bytes(text)
    with at_most(4 << 20):
        fails(packed, "bundle.json", f"{len(text)} bytes")
    with at_most(len(text) + (4 << 20)):
        fails(tmp_path, "bundle.json holds more than 4000000 values")


def test_a_member_that_is_longer_than_it_says(tmp_path: Path) -> None:
    names = ["records/1.out", "records/1.out.1"]
    text = index(records=[record_with(stdout_file=names)]).encode()
    path = make_zip(
        tmp_path / "x.zip", [("bundle.json", text), *((n, bytes(64 << 20)) for n in names)]
    )
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack("<L", 64 << 20), struct.pack("<L", 1000)))
    (record,) = open_bundle(path).records
    with at_most(4 << 20), pytest.raises(BundleError, match="is not what was packed"):
        record.stdout.read()


def test_a_line_of_many_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_form, "VALUE_LIMIT", 5000)
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": [' + f'"{"x," * 600}", [{"1," * 900}1], ' * 10 + "1]}")
    fails(path, "line 1: not a record: ")


def test_folders_that_lie_over_each_other_without_end(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"f{number}").mkdir()
        (tmp_path / f"f{number}" / "bundle.json").write_text(index(base=f"../f{number + 1}"))
    fails(tmp_path / "f0", "more than 16 folders lie over each other")


@pytest.mark.parametrize("name", ["bundle.json", "a.jsonl", "records/1.out", "records/1.err"])
def test_pipes_and_devices_in_a_folder_are_not_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / "records").mkdir()
    for plain in ("records/1.out", "records/1.err"):
        (tmp_path / plain).write_bytes(b"x")
    text = index(records=[record_with(stdout_file="records/1.out", stderr_file="records/1.err")])
    (tmp_path / "bundle.json").write_text(text)
    assert len(open_bundle(tmp_path).records) == 1
    place = tmp_path / name
    place.unlink(missing_ok=True)
    os.mkfifo(place)
    # In a thread: opening a pipe that nobody writes to never returns.
    Pool().start(lambda: fails(tmp_path, "is not a plain file")).result(100)
    place.unlink()
    place.symlink_to("/dev/zero")
    Pool().start(lambda: fails(tmp_path, "is a symbolic link")).result(100)


def test_every_cut_or_flipped_zip_is_an_error_or_a_bundle(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    write_bundle(path, RECORDS)
    data = path.read_bytes()
    broken = tmp_path / "broken.zip"

    def read_all(damaged: bytes) -> None:
        broken.write_bytes(damaged)
        try:
            for record in open_bundle(broken).records:
                record.stdout.read()
        except BundleError:
            pass

    for cut in range(0, len(data), 7):
        read_all(data[:cut])
    for at in range(0, len(data), 3):
        flipped = bytearray(data)
        flipped[at] ^= 0x41
        read_all(bytes(flipped))


def test_folders_that_lead_out_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "in" / "f"
    (folder / "records").mkdir(parents=True)
    (tmp_path / "secret").write_text("s")
    (folder / "records" / "1.out").symlink_to(tmp_path / "secret")

    def say(text: str) -> None:
        (folder / "bundle.json").write_text(text)

    say(index(records=[record_with(stdout_file="records/1.out")]))
    fails(folder, "symbolic link")
    say(index(records=[record_with(stdout_file="../../secret")]))
    fails(folder, "not a name of an output")
    for base in ("/etc", "..", "../..", "../.", "../a/b", "x", 5, "../"):
        say(index(base=base))
        fails(folder, "base must name a folder beside this one")
    say(index(base="../none"))
    fails(folder, "its base '../none' is missing")
    say(index(base="../f"))
    fails(folder, "leads back to itself")
    (folder.parent / "link").symlink_to(tmp_path)
    say(index(base="../link"))
    fails(folder, "symbolic link")
    say(index())
    (folder / "a.jsonl").symlink_to(tmp_path / "secret")
    fails(folder, "symbolic link")


# --- writing --------------------------------------------------------------------------------------


def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    path.write_text("mine")
    with pytest.raises(BundleError, match="is there already"):
        write_bundle(path, RECORDS)
    assert path.read_text() == "mine"
    write_bundle(path, RECORDS, overwrite=True)
    assert len(open_bundle(path).records) == len(RECORDS)
    assert os.listdir(tmp_path) == ["x.zip"]


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"

    def records() -> Iterator[Record]:
        yield RECORDS[0]
        path.write_text("somebody else's")

    with pytest.raises(BundleError, match="is there already"):
        write_bundle(path, records())
    assert path.read_text() == "somebody else's"
    assert os.listdir(tmp_path) == ["x.zip"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_nothing_is_left_when_collecting_ends_early(
    tmp_path: Path, error: type[BaseException]
) -> None:
    def records() -> Iterator[Record]:
        yield RECORDS[0]
        assert len(os.listdir(tmp_path)) <= 1  # none, where a file needs no name until it is whole
        raise error

    with pytest.raises(error):
        write_bundle(tmp_path / "x.zip", records())
    assert os.listdir(tmp_path) == []


def test_a_killed_run_leaves_no_file(tmp_path: Path) -> None:
    program = (
        "import os, signal\n"
        "from kubectl_ebpfnet.capture.write import write_bundle\n"
        "def records():\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "    yield\n"
        f"write_bundle({str(tmp_path / 'x.zip')!r}, records())\n"
    )
    done = subprocess.run((sys.executable, "-c", program), check=False)
    assert done.returncode == -9
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_system_without_links_gets_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    def refuse(*_: object, **_more: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "no links")

    monkeypatch.setattr(os, "link", refuse)
    write_bundle(tmp_path / "x.zip", RECORDS, overwrite=overwrite)
    assert len(open_bundle(tmp_path / "x.zip").records) == len(RECORDS)
    assert os.listdir(tmp_path) == ["x.zip"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot write"):
        write_bundle(tmp_path / "no" / "x.zip", RECORDS)


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        write_bundle(tmp_path / name, RECORDS, created="2026-11-21T05:20:00Z")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


# --- what ships -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["vxlan-kpr", "vxlan-kpr-egress-policy", "native-iptables", "tp06"]
)
def test_scenarios_open_and_keep_no_environment(name: str) -> None:
    bundle = open_bundle(SCENARIOS / name)
    assert bundle.note
    for record in bundle.records:
        if record.place == API:
            text = record.stdout.read()
            for word in (b'"env"', b'"command"', b'"args"', b'"volumes"', b"managedFields"):
                assert word not in text


def test_the_policy_scenario_is_the_first_one_with_its_own_records_over_it() -> None:
    base = open_bundle(SCENARIOS / "vxlan-kpr")
    delta = open_bundle(SCENARIOS / "vxlan-kpr-egress-policy")
    policy = ("cilium-dbg", "bpf", "policy", "get", "--all", "-o", "json")
    place = agent_place("node2")
    one, other = base.record(place, policy), delta.record(place, policy)
    assert one is not None
    assert other is not None
    assert one.stdout.read() != other.stdout.read()
    same = delta.record(place, ("ip", "-j", "rule"))
    assert same is not None
    assert same.stdout.read()
