"""Packets traced on this machine's kernel, through namespaces of the tests' own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_ebpfnet.errors import Unsupported
from kubectl_ebpfnet.model.protocol.questions import NodeRequest, node_argv
from kubectl_ebpfnet.node.trace import layers, packets
from kubectl_ebpfnet.node.trace.packets import PROGRAMS, PacketTrace, Selection
from tests.network_namespaces import why_not
from tests.node.trace import checks, lan, programs
from tests.node.trace.expected import EXPECTED

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(bool(why_not("nft", "tc")), reason=why_not("nft", "tc")),
    pytest.mark.skipif(bool(programs.why_not()), reason=programs.why_not()),
]


@pytest.fixture(scope="module", autouse=True)
def _network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "OBJECT", programs.compiled(tmp_path_factory.mktemp("bpf")))
        with checks.setting():
            yield


@pytest.mark.parametrize("name", EXPECTED)
def test_what_is_seen(name: str) -> None:
    told: Any = getattr(checks, f"check_{name}")()
    EXPECTED[name](json.loads(json.dumps(told)))


def test_nothing_is_left_behind() -> None:
    if shutil.which("bpftool") is None:
        pytest.skip("no bpftool")
    before = programs.loaded()  # the checks share a trace
    with PacketTrace(Selection()):
        new = programs.loaded() - before
        assert len(new) == len(PROGRAMS)
    lan.wait_for(lambda: not new & programs.loaded())


def test_a_checkout_without_objects_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("kubectl_ebpfnet.node.bpf.libbpf.BUILT", tmp_path)
    with pytest.raises(Unsupported, match="without compiled BPF programs"):
        PacketTrace(Selection())


def test_a_program_that_the_kernel_refuses_is_named_and_the_others_are_attached(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = tmp_path / "half.bpf.c"
    source.write_text(_HALF.replace("SIZE", str(len(packets.config_of(Selection())))))
    monkeypatch.setattr("kubectl_ebpfnet.node.bpf.libbpf.BUILT", tmp_path)
    programs.compile_to(source, tmp_path / "trace.bpf.o", ours=True)
    with PacketTrace(Selection(programs=("queue", "drop"))) as trace:
        assert [str(place) for place in trace.attached] == ["queue"]
        (refused,) = trace.refused
        assert refused.program == "drop"
        assert "R0 !read_ok" in refused.reason


def test_layers_are_loaded_and_gone() -> None:
    before = programs.loaded()
    found = list(layers.layers(NodeRequest(0, node_argv("trace-layers"))))
    assert [each.name for each in found] == [each.name for each in layers.OBJECTS]
    assert set(found[0].attached) == set(PROGRAMS)
    assert found[0].lacking == ()
    lan.wait_for(lambda: programs.loaded() <= before)


def test_layers_name_why_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("kubectl_ebpfnet.node.bpf.libbpf.BUILT", tmp_path)
    found = next(layers.layers(NodeRequest(0, node_argv("trace-layers"))))
    assert found.attached == ()
    assert {each.name for each in found.lacking} == set(PROGRAMS)
    assert all("without compiled BPF programs" in each.reason for each in found.lacking)


_HALF = """
#include "kernel.h"
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "Dual BSD/GPL";
const volatile char config[SIZE] SEC(".rodata.config") = {};
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } events SEC(".maps");
SEC("tp_btf/net_dev_queue") int queue(__u64 *ctx) { return config[0] * 0; }
SEC("tp_btf/kfree_skb") __attribute__((naked)) int drop(__u64 *ctx) { asm volatile("exit"); }
"""
