"""Names that tc, bpftool and the kernel give Cilium's programs (cilium-facts 4.1)."""

from __future__ import annotations

import pytest

from kubectl_ebpfnet.explain.programs.at_device import role_of


@pytest.mark.parametrize(
    "name",
    [
        "cil_from_container",
        "cil_from_container-lxc890578bef1bb",
        "cil_from_container-lxc890578bef1bb:[*fsobj]",
        "cil_from_contai",
        "bpf_lxc.o:[from-container]",
        "from-container",
    ],
)
def test_every_name_of_the_program_has_its_role(name: str) -> None:
    assert role_of(name).startswith("what leaves the pod")


@pytest.mark.parametrize(
    "name", ["", "my_filter", "cil_from_contain", "cil_from", "prog.o:[classifier]", "[*fsobj]"]
)
def test_programs_of_others_have_none(name: str) -> None:
    assert role_of(name) == ""
