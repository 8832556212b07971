"""BPF programs of a kernel: loaded, attached to hooks, and pinned.

Field names follow bpftool's JSON (bpftool-prog(8), bpftool-net(8), bpftool-link(8)). `span` is
where a fact stands in the record that it was read from.
"""

from __future__ import annotations

from dataclasses import field

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import NOWHERE, Span


@dataclass(frozen=True, slots=True)
class Program:
    """A loaded BPF program (bpftool-prog(8)).

    Attributes:
        id: kernel-wide id.
        name: at most 15 characters unless BTF gave bpftool the full function name.
        type: `sched_cls`, `xdp`, `cgroup_sock_addr`, …
        tag: 16 hex digits, hash of the instructions.
        loaded_at: seconds since the epoch, None when not said.
        map_ids: ids of the maps it uses.
        run_count, run_time_ns: how often and how long it ran while kernel.bpf_stats_enabled was
            on; None where the source does not say, or when it never ran with statistics on.
        holders: processes that keep it open, `NAME (PID)`, where the source says so.
    """

    id: int
    name: str
    type: str = ""
    tag: str = ""
    loaded_at: int | None = None
    map_ids: tuple[int, ...] = ()
    run_count: int | None = None
    run_time_ns: int | None = None
    holders: tuple[str, ...] = ()
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Attachment:
    """A BPF program at a hook, or a filter of tc that is none.

    Attributes:
        hook: `xdp`, `tcx/ingress`, `tcx/egress`, `clsact/ingress`, `clsact/egress`,
            `netkit/primary`, `netkit/peer`, `sk_lookup`, or a cgroup attach type
            (`cgroup_inet4_connect`, …).
        device: device name, "" for cgroups and for sk_lookup.
        program_name: as the source names it: a section (`bpf_lxc.o:[from-container]`), a function,
            or a function cut at 15 characters; "" when not known.
        program_id: None when the source does not say.
        tag: program tag, "" when not said.
        link_id: id of the bpf_link that holds it, None for netlink attachments.
        priority: order within the hook, lowest first: the tc filter preference, or the
            position in the listing.
        direct_action: a tc filter whose return code is the verdict.
        pin: path of the bpf_link's pin, "" when not known.
        cgroup: path of the cgroup below its hierarchy's root (`/` for the root), "" for devices.
        classifier: kind of a tc filter that runs no BPF program of its own (`u32`, `flower`,
            `matchall`, …), "" for programs.
        protocol: of the packets that a tc filter is for, as tc names it (`ip`, `ipv6`, `arp`, …);
            "" for all.
        detached: a bpf_link of a cgroup that a pin keeps, and that is attached nowhere.
        run_count: of its program, as in Program, where the source tells both.
    """

    hook: str
    device: str
    program_name: str
    program_id: int | None = None
    tag: str = ""
    link_id: int | None = None
    priority: int = 0
    direct_action: bool = True
    pin: str = ""
    cgroup: str = ""
    classifier: str = ""
    protocol: str = ""
    detached: bool = False
    run_count: int | None = None
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class BpfPin:
    """A file on bpffs that keeps a BPF object alive.

    Attributes:
        path: whole path.
        kind: `link` or `map`.
        owner: `device`, `endpoint` or `cgroup` for links, "" for maps.
        owner_name: device name (Cilium writes `-` for `.`), endpoint id, or cgroup; "" for maps.
        name: last part: the program's full name for links, the map's name for maps.
    """

    path: str
    kind: str
    owner: str
    owner_name: str
    name: str
    span: Span = field(default=NOWHERE, compare=False)
