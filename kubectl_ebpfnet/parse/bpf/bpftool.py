"""Output of bpftool: programs and their attach points.

Sources: the kernel's tools/bpf/bpftool/net.c, link.c, prog.c, cgroup.c and common.c;
bpftool-net(8), bpftool-link(8), bpftool-prog(8), bpftool-cgroup(8). Verified with bpftool 7.1,
which does not know tcx and netkit links, and with 7.5, which does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.bpf import Attachment, Program
from kubectl_ebpfnet.model.evidence import NOWHERE, Span
from kubectl_ebpfnet.parse._text import (
    Located,
    integer,
    is_json,
    json_integer,
    json_objects,
    json_text,
    json_value,
    lines,
    next_word,
    quoted,
)
from kubectl_ebpfnet.parse.bpf.bpffs import cilium_pin

_CGROUP_ROOTS = ("/run/cilium/cgroupv2", "/sys/fs/cgroup/unified", "/sys/fs/cgroup")
"""Where the root of the hierarchy is mounted: by Cilium, and by systemd in its two ways."""
# bpftool before 6.0 printed the names of its command line; the values are the kernel's names.
_OLD_ATTACH_TYPES = {
    "ingress": "cgroup_inet_ingress",
    "egress": "cgroup_inet_egress",
    "sock_create": "cgroup_inet_sock_create",
    "sock_release": "cgroup_inet_sock_release",
    "sock_ops": "cgroup_sock_ops",
    "device": "cgroup_device",
    "bind4": "cgroup_inet4_bind",
    "bind6": "cgroup_inet6_bind",
    "connect4": "cgroup_inet4_connect",
    "connect6": "cgroup_inet6_connect",
    "post_bind4": "cgroup_inet4_post_bind",
    "post_bind6": "cgroup_inet6_post_bind",
    "getpeername4": "cgroup_inet4_getpeername",
    "getpeername6": "cgroup_inet6_getpeername",
    "getsockname4": "cgroup_inet4_getsockname",
    "getsockname6": "cgroup_inet6_getsockname",
    "sendmsg4": "cgroup_udp4_sendmsg",
    "sendmsg6": "cgroup_udp6_sendmsg",
    "recvmsg4": "cgroup_udp4_recvmsg",
    "recvmsg6": "cgroup_udp6_recvmsg",
    "sysctl": "cgroup_sysctl",
    "getsockopt": "cgroup_getsockopt",
    "setsockopt": "cgroup_setsockopt",
}
_ATTACH_FLAGS = ("multi", "override")
# bpftool's words for a device that is gone, or of another namespace.
_DETACHED = "(detached)"
_NO_DEVICE = (_DETACHED, "(unknown)", "")


def programs(data: bytes) -> tuple[Program, ...]:
    """Return the programs of `bpftool -j prog show`, in their order."""
    source = "bpftool prog"
    found = []
    for span, record in _records(data, source):
        map_ids = record.get("map_ids", [])
        if not isinstance(map_ids, list):
            raise ParseError(source, 1, f'"map_ids" is {quoted(map_ids)}, not a list')
        kind = record.get("type", "")
        found.append(
            Program(
                id=integer(record.get("id"), source, 1),
                name=json_text(record, "name", source),
                # A type that this bpftool does not know is printed as its number.
                type=kind if isinstance(kind, str) else str(integer(kind, source, 1)),
                tag=json_text(record, "tag", source),
                loaded_at=json_integer(record, "loaded_at", source),
                map_ids=tuple(integer(number, source, 1) for number in map_ids),
                run_count=json_integer(record, "run_cnt", source),
                run_time_ns=json_integer(record, "run_time_ns", source),
                holders=_holders(record, source),
                span=span,
            )
        )
    return tuple(found)


def _holders(record: dict[str, Any], source: str) -> tuple[str, ...]:
    """Return the processes that hold a program, which bpftool prints where it has BTF (pids.c)."""
    listed = json_objects(record.get("pids", []), source, NOWHERE)
    return tuple(
        f"{json_text(one, 'comm', source)} ({integer(one.get('pid'), source, 1)})"
        for _, one in listed
    )


def net(data: bytes) -> tuple[Attachment, ...]:
    """Return the XDP, clsact, tcx and netkit programs of `bpftool [-j] net show`.

    In their order; `priority` is the position at the device's hook, from 0, in which tcx programs
    run. bpftool 7.1 does not list tcx and netkit, so other programs may be attached too.
    """
    found = _json_net(data) if is_json(data) else _text_net(data)
    return _positioned(found)


def _json_net(data: bytes) -> Iterator[Attachment]:
    source = "bpftool net"
    for part, lists in _records(data, source):
        for span, record in json_objects(lists.get("xdp", []), source, part.member("xdp")):
            several = record.get("multi_attachments")
            attached = (
                [(span, record)]
                if several is None
                else json_objects(several, source, span.member("multi_attachments"))
            )
            for place, one in attached:
                yield _net_attachment({**record, **one, "kind": "xdp"}, place)
        for span, record in json_objects(lists.get("tc", []), source, part.member("tc")):
            yield _net_attachment(record, span)


def _net_attachment(record: dict[str, Any], span: Span) -> Attachment:
    source, number = "bpftool net", span.line
    kind = json_text(record, "kind", source)
    device = json_text(record, "devname", source)
    if not kind or not device:
        raise ParseError(source, number, "an attachment without a device or a kind")
    program = record.get("prog_id", record.get("id"))
    link = record.get("link_id")
    return Attachment(
        hook=kind,
        device=device,
        program_name=json_text(record, "name", source),
        program_id=None if program is None else integer(program, source, number),
        link_id=None if link is None else integer(link, source, number),
        span=span,
    )


def _text_net(data: bytes) -> Iterator[Attachment]:
    section = ""
    for number, text in lines(data, "bpftool net"):
        line = text.split()
        if not line:
            continue
        if len(line) == 1 and line[0].endswith(":"):
            section = line[0]
        elif section in ("xdp:", "tc:"):
            yield _net_attachment(_net_line(section, line, number), Span(number))
        elif not section:
            raise ParseError("bpftool net", number, f"not in a section: {quoted(text)}")


def _net_line(section: str, line: list[str], number: int) -> dict[str, Any]:
    """Parse `eth0(2) tcx/ingress cil_from_netdev prog_id 2231 link_id 248` into JSON's members."""
    device, parenthesis, index = line[0].rpartition("(")
    if not parenthesis or not index.endswith(")"):
        raise ParseError("bpftool net", number, f"not a device: {quoted(line[0])}")
    record: dict[str, Any] = {"devname": device, "kind": "xdp"}
    rest = line[1:]
    if section == "tc:":
        record["kind"] = rest.pop(0) if rest else ""
        if rest and not (rest[0] in ("id", "prog_id") and len(rest) % 2 == 0):
            record["name"] = rest.pop(0)
    words = iter(rest)
    for word in words:
        if word in ("id", "prog_id", "link_id"):
            record[word] = next_word(words, word, "bpftool net", number)
    return record


def links(data: bytes) -> tuple[Attachment, ...]:
    """Return the attachments of `bpftool -j [-f] link show`, in their order.

    `priority` is the position at the device's hook, from 0. Links of devices of another network
    namespace, and links without packets are left out. A detached link has a pin and no device.

    A link whose type this bpftool does not know has the hook "" when Cilium pinned it: then the
    pin tells device (Cilium writes `-` for `.` in its name) or endpoint, and program.
    """
    found = (_link(record, span) for span, record in _records(data, "bpftool link"))
    return _positioned(attachment for attachment in found if attachment is not None)


def _link(record: dict[str, Any], span: Span) -> Attachment | None:
    source = "bpftool link"
    kind = record.get("type", "")
    attach_type = record.get("attach_type", "")
    pin = _pin(record)
    owner, owner_name, program = cilium_pin(pin)
    device = json_text(record, "devname", source)
    if not device and owner == "device":  # bpftool 7.1 prints no device for xdp links either
        device = owner_name
    hook = ""
    if kind == "cgroup":
        hook, device = _cgroup_hook(attach_type), ""
    elif kind == "netns" and attach_type == "sk_lookup":
        hook, device = "sk_lookup", ""
    elif kind in ("tcx", "netkit") and isinstance(attach_type, str):
        hook = attach_type.replace("_", "/", 1)
    elif kind == "xdp":
        hook = "xdp"
    elif not _is_unknown(kind) or not program:
        return None
    if kind in ("tcx", "netkit", "xdp") and device in _NO_DEVICE:
        if not pin or (device != _DETACHED and record.get("ifindex") != 0):
            return None
        device = ""
    return Attachment(
        hook=hook,
        device=device,
        program_name=program,
        program_id=json_integer(record, "prog_id", source),
        link_id=integer(record.get("id"), source, 1),
        pin=pin,
        detached=kind == "cgroup" and record.get("cgroup_id") == 0,
        span=span,
    )


def _is_unknown(kind: object) -> bool:
    """Tell whether this bpftool does not know the link's type: then it prints a number."""
    if isinstance(kind, str):
        return kind.removeprefix("type ").isdigit()
    return isinstance(kind, int)


def _pin(record: dict[str, Any]) -> str:
    pinned = record.get("pinned", [])
    if not isinstance(pinned, list) or not all(isinstance(path, str) for path in pinned):
        raise ParseError("bpftool link", 1, '"pinned" is not a list of paths')
    return next((path for path in pinned if cilium_pin(path)[2]), pinned[0] if pinned else "")


def _cgroup_hook(attach_type: object) -> str:
    """Return the kernel's name of a cgroup attach type, from the word of any bpftool."""
    if not isinstance(attach_type, str):
        return str(integer(attach_type, "bpftool", 1))
    return _OLD_ATTACH_TYPES.get(attach_type, attach_type)


def cgroup_tree(data: bytes) -> tuple[Attachment, ...]:
    """Return the programs of `bpftool cgroup tree`, in their order, of all cgroups together.

    `priority` is the position at the hook of the cgroup, from 0.
    """
    return _positioned(_text_cgroups(data))


def _text_cgroups(data: bytes) -> Iterator[Attachment]:
    source, cgroup = "bpftool cgroup", ""
    for number, text in lines(data, source):
        words = text.split()
        if text.startswith("/"):
            root = next((root for root in _CGROUP_ROOTS if text.startswith(root)), "")
            cgroup = text.removeprefix(root).strip() or "/"
            continue
        if not words or words[0] in ("CgroupPath", "ID"):
            continue
        if len(words) < 2:
            raise ParseError(source, number, f"not a program: {quoted(text)}")
        flagged = len(words) > 2 and (words[2] in _ATTACH_FLAGS or words[2].startswith("unknown("))
        yield Attachment(
            hook=_cgroup_hook(words[1]),
            device="",
            program_name="".join(words[3:4] if flagged else words[2:3]),
            program_id=integer(words[0], source, number),
            cgroup=cgroup,
            span=Span(number),
        )


def _records(data: bytes, source: str) -> list[Located]:
    value = json_value(data, source)
    if isinstance(value, dict) and "error" in value:
        raise ParseError(source, 1, f"bpftool: {quoted(value['error'])}")
    return json_objects(value, source)


def _positioned(found: Iterable[Attachment]) -> tuple[Attachment, ...]:
    """Return attachments with their position at the device's hook as their priority."""
    seen: dict[tuple[str, str, str], int] = {}
    positioned = []
    for attachment in found:
        key = (attachment.device, attachment.cgroup, attachment.hook)
        position = seen.get(key, 0)
        seen[key] = position + 1
        positioned.append(replace(attachment, priority=position))
    return tuple(positioned)


def version(data: bytes) -> str:
    """Return the version that `bpftool -j version` prints, e.g. `7.1.0`. Raises ParseError."""
    value = json_value(data, "bpftool version")
    if not isinstance(value, dict):
        raise ParseError("bpftool version", 0, "not a JSON object")
    return json_text(value, "version", "bpftool version")
