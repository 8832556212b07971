"""Loaded programs and pins, against what bpftool and ls say of the same kernel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.model.bpf import Program
from kubectl_ebpfnet.model.protocol.questions import NodeRequest, node_argv
from kubectl_ebpfnet.node.bpf import btf, programs
from kubectl_ebpfnet.parse.bpf import bpffs, bpftool
from tests.node.bpf import bpf_programs as made

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(bool(made.why_not()), reason=f"no kernel to test: {made.why_not()}"),
]

SOURCE = """
#define SEC(name) __attribute__((section(name), used))
enum colour { RED, GREEN };
union both { int number; char text[4]; };
struct { int (*type)[1]; int *key; long *value; int (*max_entries)[4]; } first SEC(".maps");
struct { int (*type)[2]; int *key; union both *value; int (*max_entries)[4]; } second SEC(".maps");
static void *(*lookup)(void *, const void *) = (void *)1;
volatile const enum colour chosen = GREEN;

__attribute__((noinline)) int counted_by_a_function(int key) {
    long *value = lookup(&first, &key);
    return value ? (int)*value : 0;
}
SEC("tc") int cil_from_container_with_a_long_name(void *skb) {
    int key = 1;
    union both *found = lookup(&second, &key);
    return found ? found->number + counted_by_a_function(key) + chosen : 0;
}
SEC("tc") int cil_to_container_with_a_long_name(void *skb) { return 0; }
char _license[] SEC("license") = "Apache-2.0";
"""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as one:
        yield one


def asked(*words: str) -> list[Program]:
    return list(programs.programs(NodeRequest(1, node_argv("programs", *words))))


def tool(*argv: str) -> Any:
    if shutil.which("bpftool") is None:
        pytest.skip("bpftool is not installed")
    return json.loads(subprocess.run(("bpftool", "-j", *argv), capture_output=True).stdout)


@pytest.fixture
def object_file(stack: ExitStack, tmp_path: Path) -> Path:
    """The folder of a bpffs with the programs of SOURCE."""
    built = made.compiled(SOURCE, tmp_path)
    folder = made.bpffs(stack, tmp_path / "bpf") / "loaded"
    argv = ("bpftool", "prog", "loadall", str(built), str(folder))
    done = subprocess.run(argv, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return folder


def test_every_program_is_as_bpftool_shows_it(stack: ExitStack, object_file: Path) -> None:
    own = {made.id_of(made.load(stack, made.XDP, "short")) for _ in range(3)}
    own |= {tool("prog", "show", "pinned", str(path))["id"] for path in object_file.iterdir()}
    shown = {one.id: one for one in bpftool.programs(json.dumps(tool("prog", "show")).encode())}
    found = asked()
    assert [one.id for one in found] == sorted(one.id for one in found)
    both = {one.id: one for one in found if one.id in shown}
    assert own <= set(both)
    for id, one in both.items():  # others may load programs meanwhile
        theirs = shown[id]
        assert (one.name, one.type, one.tag) == (theirs.name, theirs.type, theirs.tag)
        assert one.map_ids == theirs.map_ids
        assert one.loaded_at is not None
        assert theirs.loaded_at is not None
        assert abs(one.loaded_at - theirs.loaded_at) <= 1


def test_names_are_whole_where_btf_has_them(object_file: Path) -> None:
    ids = [tool("prog", "show", "pinned", str(path))["id"] for path in object_file.iterdir()]
    named = {one.name for one in asked(*map(str, ids))}
    assert named == {"cil_from_container_with_a_long_name", "cil_to_container_with_a_long_name"}


def test_names_are_the_kernels_where_there_is_no_btf(stack: ExitStack) -> None:
    fd = made.load(stack, made.SCHED_CLS, "cil_from_contai")
    assert [one.name for one in asked(str(made.id_of(fd)))] == ["cil_from_contai"]


def test_every_function_of_a_btf_is_found(object_file: Path) -> None:
    shown = tool("prog", "show", "pinned", str(next(object_file.iterdir())))
    types = tool("btf", "dump", "id", str(shown["btf_id"]))["types"]
    wanted = {one["id"]: one["name"] for one in types if one["kind"] == "FUNC"}
    assert len(wanted) >= 3
    assert {"STRUCT", "ARRAY", "UNION", "ENUM", "VAR", "DATASEC"} <= {one["kind"] for one in types}
    names = btf.FunctionNames()
    assert {id: names.name(shown["btf_id"], id) for id in wanted} == wanted
    assert names.name(shown["btf_id"], len(types) + 1) == ""
    assert names.name((1 << 31) - 1, 1) == ""  # no such BTF


@pytest.mark.parametrize("blob", [b"", b"\x9f\xeb", bytes(24), b"\x9f\xeb\1\0" + bytes(99)])
def test_what_is_no_btf_has_no_functions(blob: bytes) -> None:
    assert btf.functions(blob) == {}


def test_a_broken_btf_ends() -> None:
    # One FUNC type whose name lies behind the end.
    header = b"\x9f\xeb\1\0" + b"".join(n.to_bytes(4, "little") for n in (24, 0, 12, 12, 1))
    whole = header + (9999).to_bytes(4, "little") + (12 << 24).to_bytes(4, "little") + bytes(5)
    assert btf.functions(whole) == {}


def test_more_maps_than_expected_are_all_there(object_file: Path) -> None:
    path = object_file / "cil_from_container_with_a_long_name"
    if not path.exists():  # libbpf before 1.0 names pins by section
        pytest.skip("this bpftool pins programs under other names")
    shown = tool("prog", "show", "pinned", str(path))
    assert len(shown["map_ids"]) > 1
    fd = programs.syscall.open_pinned(path)
    try:
        assert list(programs.ProgramReader()._read_program(fd, maps=1).map_ids) == shown["map_ids"]
    finally:
        os.close(fd)


def test_programs_that_are_gone_are_left_out(stack: ExitStack) -> None:
    gone, kept = (made.load(stack, made.XDP, name) for name in ("gone", "kept"))
    gone_id, kept_id = made.id_of(gone), made.id_of(kept)
    assert {one.id for one in asked(str(kept_id), str(gone_id))} == {gone_id, kept_id}
    os.close(gone)
    made.eventually(
        lambda: [one.id for one in asked(str(gone_id), str(kept_id))] == [kept_id],
    )


@pytest.mark.parametrize("word", ["x", "-1", "1.5", "²"])
def test_a_word_that_is_no_id_is_refused(word: str) -> None:
    with pytest.raises(KernelError, match="by their ids"):
        asked(word)


def test_runs_are_counted_while_statistics_are_on(stack: ExitStack) -> None:
    fd = made.load(stack, made.XDP, "counted", 2)
    id = str(made.id_of(fd))
    if Path("/proc/sys/kernel/bpf_stats_enabled").read_text().strip() != "0":
        pytest.skip("kernel.bpf_stats_enabled is on")
    made.run(fd, 5)
    assert [(one.run_count, one.run_time_ns) for one in asked(id)] == [(None, None)]
    made.statistics(stack)
    made.run(fd, 1000)
    (found,) = asked(id)
    shown = tool("prog", "show", "id", id)
    assert found.run_count == shown["run_cnt"] == 1000
    assert found.run_time_ns == shown["run_time_ns"] > 0


def test_statistics_that_are_on_count_no_runs_as_none_at_all(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    on = tmp_path / "bpf_stats_enabled"
    on.write_text("1\n")
    monkeypatch.setattr(programs, "STATISTICS", on)
    fd = made.load(stack, made.XDP, "idle")
    assert [(one.run_count, one.run_time_ns) for one in asked(str(made.id_of(fd)))] == [(0, 0)]


def test_pins_are_what_ls_shows(stack: ExitStack, tmp_path: Path) -> None:
    root = made.bpffs(stack, tmp_path / "bpf with a space")
    program = made.load(stack, made.SCHED_CLS, "p")
    for place in (
        "cilium/devices/eth0-5/links/cil_from_netdev",
        "cilium/devices/eth0/links/cil_from_netdev",
        "cilium/devices/eth0/links/cil_to_netdev",
        "cilium/endpoints/448/links/cil_from_container",
        "cilium/endpoints/448/other/not_a_link",
        "cilium/socketlb/links/cgroup/cil_sock4_connect",
        "tc/globals/cilium_lxc",
        "tc/globals/Cilium_upper",
        "tc/globals/folder/deeper",
        "tc/elsewhere/x",
        "y",
    ):
        made.pin(program, root / place)
    listed = subprocess.run(
        ("ls", "-R", str(root)), capture_output=True, check=True, env={**os.environ, "LC_ALL": "C"}
    )
    wanted = bpffs.pins(listed.stdout)
    assert len(wanted) == 7
    found = [
        one
        for one in programs.pins(NodeRequest(1, node_argv("pins")))
        if one.path.startswith(str(root))
    ]
    assert found == list(wanted)
