"""parse.bpffs, on what ls printed of a bpffs."""

from __future__ import annotations

import pytest

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.bpf import BpfPin
from kubectl_ebpfnet.parse.bpf import bpffs
from tests.parse.parse_samples import line_at, sample

LISTING = "coreutils-9.1/vxlan-node1/ls-R-sys-fs-bpf"


def test_the_pins_of_a_node() -> None:
    data = sample(LISTING)
    pins = bpffs.pins(data)
    by = {pin.path: pin for pin in pins}
    path = "/sys/fs/bpf/cilium/devices/eth0/links/cil_to_netdev"
    assert by[path] == BpfPin(path, "link", "device", "eth0", "cil_to_netdev")
    path = "/sys/fs/bpf/cilium/endpoints/448/links/cil_from_container"
    assert by[path] == BpfPin(path, "link", "endpoint", "448", "cil_from_container")
    path = "/sys/fs/bpf/cilium/socketlb/links/cgroup/cil_sock4_connect"
    assert by[path] == BpfPin(path, "link", "cgroup", "cgroup", "cil_sock4_connect")
    path = "/sys/fs/bpf/tc/globals/cilium_snat_v4_external"
    assert by[path] == BpfPin(path, "map", "", "", "cilium_snat_v4_external")
    assert all(line_at(data, pin.span.line) == pin.name for pin in pins)
    assert not any(pin.name in ("links", "maps.debug", "devices", "globals") for pin in pins)


def test_a_cluster_without_cilium_nat_has_no_snat_map() -> None:
    names = {pin.name for pin in bpffs.pins(sample("coreutils-9.1/native-node2/ls-R-sys-fs-bpf"))}
    assert "cilium_ct4_global" in names
    assert "cilium_snat_v4_external" not in names


def test_the_other_root_and_an_empty_directory() -> None:
    data = b"/run/cilium/bpffs/cilium/devices/eth0-5/links:\ncil_to_netdev\nempty\n\n"
    data += b"/run/cilium/bpffs/cilium/devices/eth0-5/links/empty:\n"
    (pin,) = bpffs.pins(data)
    assert (pin.owner_name, pin.name, pin.span.line) == ("eth0-5", "cil_to_netdev", 2)


def test_pins_of_others_are_left_out() -> None:
    pins = bpffs.pins(sample("coreutils-9.1/netns/ls-R"))
    assert {pin.name for pin in pins} == {
        "cil_from_container",
        "cil_from_host",
        "cil_to_host",
        "cil_sock4_connect",
        "cil_xdp_entry",
    }
    assert bpffs.pins(b"") == ()


def test_a_name_may_end_like_a_directory() -> None:
    data = b"/sys/fs/bpf/tc/globals:\nodd:\n"
    assert [pin.name for pin in bpffs.pins(data)] == ["odd:"]


def test_an_entry_of_no_directory_is_named() -> None:
    with pytest.raises(ParseError) as raised:
        bpffs.pins(b"\ncilium_metrics\n")
    assert raised.value.line == 2
