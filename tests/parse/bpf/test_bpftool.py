"""parse.bpftool, on what bpftool 7.1 (no tcx) and 7.5 printed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.bpf import Attachment, Program
from kubectl_ebpfnet.parse.bpf import bpftool
from tests.parse.parse_samples import line_at, sample

OLD, NEW, NATIVE = (
    "bpftool-7.1.0/netns/",
    "bpftool-7.5.0/vxlan-node1/",
    "bpftool-7.5.0/native-node2/",
)


@pytest.mark.parametrize("folder", [OLD, NEW, NATIVE])
def test_text_and_json_give_equal_attachments(folder: str) -> None:
    text = bpftool.net(sample(folder + "bpftool-net-show"))
    assert text == bpftool.net(sample(folder + "bpftool-j-net-show"))
    assert len(text) > 4


def test_tcx_programs() -> None:
    data = sample(NEW + "bpftool-net-show")
    found = bpftool.net(data)
    assert found[1] == Attachment(
        hook="tcx/egress",
        device="eth0",
        program_name="cil_to_netdev",
        program_id=2237,
        link_id=249,
    )
    assert line_at(data, found[1].span.line).startswith("eth0(2) tcx/egress cil_to_netdev")
    assert [one.device for one in found if one.program_name == "cil_from_container"] == [
        "lxc890578bef1bb"
    ]


def test_clsact_and_xdp_programs() -> None:
    found = bpftool.net(sample(OLD + "bpftool-j-net-show"))
    assert [(one.hook, one.device) for one in found] == [
        ("xdp", "lxc1"),
        ("xdp", "cilium_net"),
        ("clsact/ingress", "lxc1"),
        ("clsact/ingress", "lxc1"),
        ("clsact/ingress", "lxc1"),
        ("clsact/egress", "lxc1"),
    ]
    assert [one.priority for one in found] == [0, 0, 0, 1, 2, 0]
    assert found[2].program_name == "cls:[*fsobj]"
    assert found[2].program_id is not None
    assert found[4].program_id is None  # classic BPF


def test_the_old_forms_of_net_show() -> None:
    # cilium-facts 4.1: bpftool before tcx, on Cilium 1.14 and on 1.10.
    json = b'[{"xdp":[],"tc":[{"devname":"lxc1234","ifindex":3,"kind":"clsact/ingress",'
    json += b'"name":"cil_from_container-lxc1234","id":108}],"flow_dissector":[]}]'
    text = b"xdp:\n\ntc:\nlxc1234(3) clsact/ingress cil_from_container-lxc1234 id 108\n\n"
    (found,) = bpftool.net(json)
    assert (found.program_name, found.program_id, found.link_id) == (
        "cil_from_container-lxc1234",
        108,
        None,
    )
    assert bpftool.net(text) == (found,)
    netkit = b"tc:\nlxc1(9) netkit/peer cil_from_container prog_id 120 link_id 15 \n"
    assert bpftool.net(netkit)[0].hook == "netkit/peer"


def test_several_xdp_programs_of_one_device() -> None:
    # The form of do_xdp_dump_one() in the kernel's tools/bpf/bpftool/netlink_dumper.c.
    json = b'[{"xdp":[{"devname":"eth0","ifindex":2,"multi_attachments":'
    json += b'[{"mode":"generic","id":5},{"mode":"offload","id":6}]}],"tc":[]}]'
    assert [(one.program_id, one.priority) for one in bpftool.net(json)] == [(5, 0), (6, 1)]


def test_links_of_a_new_bpftool() -> None:
    found = bpftool.links(sample(NEW + "bpftool-j-link-show"))
    tcx = [one for one in found if one.hook == "tcx/ingress" and one.device == "eth0"]
    assert [(one.link_id, one.program_id, one.priority) for one in tcx] == [
        (243, 2192, 0),
        (248, 2231, 1),
    ]
    cgroup = next(one for one in found if one.hook == "cgroup_inet4_connect")
    assert (cgroup.device, cgroup.program_id, cgroup.link_id) == ("", 2074, 221)


def test_links_of_a_bpftool_that_does_not_know_tcx() -> None:
    found = {one.program_name: one for one in bpftool.links(sample(OLD + "bpftool-j-f-link-show"))}
    host = found["cil_from_host"]
    assert (host.hook, host.device) == ("", "cilium_host")
    assert host.pin.endswith("/cilium/devices/cilium_host/links/cil_from_host")
    lxc = found["cil_from_container"]
    assert (lxc.hook, lxc.device) == ("", "")
    assert lxc.pin.endswith("/cilium/endpoints/448/links/cil_from_container")
    assert (found["cil_xdp_entry"].hook, found["cil_xdp_entry"].device) == ("xdp", "lxc1")
    assert found["cil_sock4_connect"].hook == "cgroup_inet4_connect"
    assert found[""].hook == "sk_lookup"  # its pin is not Cilium's, so it names no program
    assert "other" not in found  # of an unknown type, and not Cilium's


def test_without_pins_an_unknown_type_says_nothing() -> None:
    hooks = [one.hook for one in bpftool.links(sample(OLD + "bpftool-j-link-show"))]
    assert hooks == ["sk_lookup", "cgroup_inet4_connect"]


def test_other_links() -> None:
    def hooks(link: str) -> list[tuple[str, str]]:
        found = bpftool.links(f'[{{"id":1,"prog_id":2,{link}}}]'.encode())
        return [(one.hook, one.device) for one in found]

    assert hooks('"type":"netkit","devname":"lxc1","attach_type":"netkit_peer"') == [
        ("netkit/peer", "lxc1")
    ]
    assert hooks('"type":"xdp","devname":"eth0","ifindex":2') == [("xdp", "eth0")]
    assert hooks('"type":"cgroup","attach_type":"connect4"') == [("cgroup_inet4_connect", "")]
    assert hooks('"type":"tracing","attach_type":"trace_fentry"') == []
    assert hooks('"type":"netns","attach_type":"flow_dissector"') == []
    detached = '"type":"tcx","devname":"(detached)","ifindex":0,"attach_type":"tcx_ingress"'
    assert hooks(detached) == []
    pin = '"type":"type 11","pinned":["/x","/sys/fs/bpf/cilium/devices/eth0-5/links/cil_to_netdev"]'
    assert hooks(pin) == [("", "eth0-5")]


def test_programs() -> None:
    programs = bpftool.programs(sample(NEW + "bpftool-j-prog-show"))
    assert programs[0] == Program(
        id=101,
        name="cil_from_container",
        type="sched_cls",
        tag="59f4a931744dcdc6",
        loaded_at=1795233307,
    )
    assert programs[1].map_ids == (777, 763)
    assert bpftool.programs(b'[{"id":5,"type":33}]') == (Program(id=5, name="", type="33"),)


def test_cgroup_tree() -> None:
    data = sample(NEW + "bpftool-cgroup-tree-run-cilium-cgroupv2")
    found = bpftool.cgroup_tree(data)
    assert len(found) == 22
    connect = [one for one in found if one.hook == "cgroup_inet4_connect"]
    assert [(one.program_id, one.priority) for one in connect] == [(2074, 0), (2153, 1)]
    assert connect[0].program_name == "cil_sock4_connect"
    assert line_at(data, connect[0].span.line).startswith("2074 ")
    assert bpftool.cgroup_tree(sample(NATIVE + "bpftool-cgroup-tree-run-cilium-cgroupv2")) == ()


def test_the_cgroup_tree_of_an_old_bpftool() -> None:
    found = bpftool.cgroup_tree(sample(OLD + "bpftool-cgroup-tree"))
    assert found[0].program_name == "cil_sock4_conne"


def test_cgroup_tree_of_an_old_bpftool() -> None:
    # bpftool before 6.0 printed its own short names, and nothing where there are no flags.
    data = b"CgroupPath\nID       AttachType      AttachFlags     Name\n/run/cilium/cgroupv2\n"
    data += b"    12       connect4                        connect4       \n"
    data += b"    13       sendmsg6        multi           \n"
    assert [(one.hook, one.program_name) for one in bpftool.cgroup_tree(data)] == [
        ("cgroup_inet4_connect", "connect4"),
        ("cgroup_udp6_sendmsg", ""),
    ]


@pytest.mark.parametrize(
    ("parse", "data", "line"),
    [
        (bpftool.net, b"eth0(2) tcx/ingress x prog_id 5\n", 1),
        (bpftool.net, b"tc:\neth0 tcx/ingress x prog_id 5\n", 2),
        (bpftool.net, b"tc:\n\neth0(2) tcx/ingress x prog_id\n", 3),
        (bpftool.net, b"tc:\neth0(2)\n", 2),
        (bpftool.net, b'[{"tc":[{"devname":"eth0"}]}]', 0),
        (bpftool.net, b'{"error":"Permission denied"}', 1),
        (bpftool.links, b'[{"type":"tcx","devname":"e","attach_type":"tcx_ingress"}]', 1),
        (bpftool.links, b'[{"id":1,"type":"xdp","pinned":[5]}]', 1),
        (bpftool.links, b"1: xdp  prog 5\n", 1),
        (bpftool.programs, b'[{"name":"x"}]', 1),
        (bpftool.programs, b'[{"id":1,"map_ids":5}]', 1),
        (bpftool.cgroup_tree, b"CgroupPath\n/a\n    x\n", 3),
        (bpftool.cgroup_tree, b"/a\n    x connect4\n", 2),
    ],
)
def test_an_unintelligible_record_is_named(
    parse: Callable[[bytes], object], data: bytes, line: int
) -> None:
    with pytest.raises(ParseError) as raised:
        parse(data)
    assert raised.value.line == line
    assert raised.value.source.startswith("bpftool ")


def test_the_version() -> None:
    said = b'{"version":"7.1.0","libbpf_version":"1.1","features":{"libbfd":false}}'  # Debian 12
    assert bpftool.version(said) == "7.1.0"
    for wrong in (b"bpftool v7.1.0", b"[]", b'{"version": 7}'):
        with pytest.raises(ParseError):
            bpftool.version(wrong)
