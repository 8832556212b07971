"""Read the source of a packet as people type it: a pod, a workload, a node, or the address of a
client outside of the cluster, without I/O.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address

from kubectl_ebpfnet.cli.object_words import WORKLOADS, checked_name, is_name, shown, split
from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import Address

_SOURCE_EXAMPLE = (
    "a source is pod/NAME, deploy/NAME, node/NAME, or the address of a client outside of the "
    "cluster: e.g. pod/client, node/worker-1, 203.0.113.9"
)


@dataclass(frozen=True, slots=True)
class Source:
    """The source of a packet.

    Attributes:
        kind: `pod`, or the kind of a workload, which stands for one of its pods; `node` for a
            process of a node; `address` for a client outside of the cluster.
        name: name of the object, "" for an address.
        text: `kind/name` as typed, or the address.
        namespace: of `NAMESPACE/POD`, "" for other forms.
        address: of a client outside, else None.
    """

    kind: str
    name: str
    text: str
    namespace: str = ""
    address: Address | None = None


def source(word: str) -> Source:
    """Read `pod/x`, `po/x`, `deploy/x`, `node/x`, `NAMESPACE/POD`, …, an address, or a bare name,
    which is a pod's.

    Raises:
        UsageError: names the expected form, with an example.
    """
    client = client_address(word)
    if client is not None:
        return Source("address", "", str(client), address=client)
    found = split(word, _SOURCE_EXAMPLE)
    if not found.typed and "." in found.name and is_name(found.name):
        pod, _, rest = found.name.partition(".")
        raise UsageError(
            f"{shown(word)}: a namespace does not belong to the name",
            hint=f"use -n: pod/{pod} -n {rest}; a pod with dots in its name is pod/{found.name}",
        )
    if found.kind not in ("pod", "node", *WORKLOADS):
        raise UsageError(f"{shown(word)}: a {found.kind} cannot be a source", hint=_SOURCE_EXAMPLE)
    return Source(found.kind, checked_name(word, found.name), found.text, found.namespace)


def client_address(word: str) -> Address | None:
    """Return the address of a client outside that a word is, None where it is no address.

    Raises:
        UsageError: no packet of a client can come from this address, or a port stands behind it.
    """
    bare = word.removeprefix("[").removesuffix("]")
    try:
        address = ip_address(bare)
    except ValueError:
        host, colon, port = word.rpartition(":")
        if colon and port.isdecimal() and client_address(host) is not None:
            hint = "a client's port is chosen anew for each connection: leave it out"
            raise UsageError(f"{shown(word)}: a source has no port", hint=hint) from None
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id:
            raise UsageError(f"{shown(word)}: a zone names a device of one machine")
        address = address.ipv4_mapped or address
    kinds = {
        "an unspecified": address.is_unspecified,
        "a loopback": address.is_loopback,
        "a multicast": address.is_multicast or address == ip_address("255.255.255.255"),
        "a link-local": address.is_link_local,
    }
    kind = next((kind for kind, is_it in kinds.items() if is_it), "")
    if kind:
        raise UsageError(
            f"{shown(word)} is {kind} address: no client outside has it", hint=_SOURCE_EXAMPLE
        )
    return address


def via(word: str, sender: Source) -> str:
    """Return the node of --via, "" where it was not given.

    Args:
        word: `node/NAME` or a node's bare name.
        sender: the source, which has to be outside.

    Raises:
        UsageError: it is no node, or the source is not outside of the cluster.
    """
    if not word:
        return ""
    if sender.kind != "address":
        raise UsageError(
            f"--via {shown(word)}: {sender.text} is inside of the cluster, and does not enter it",
            hint="--via is for the address of a client outside: path 203.0.113.9 svc/web "
            "--via node/NAME",
        )
    example = "e.g. --via node/worker-1"
    found = split(word, example)
    if found.typed and found.kind != "node":
        raise UsageError(f"--via {shown(word)}: a client enters by a node", hint=example)
    return checked_name(word, found.name)
