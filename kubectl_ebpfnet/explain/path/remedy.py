"""How to get a fact that is missing, where the stage that lacks it does not say."""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.errors import tier_of_words
from kubectl_ebpfnet.explain.kernel.chain_ends import WANTS_PORT
from kubectl_ebpfnet.explain.path.endings import Stopped
from kubectl_ebpfnet.explain.path.state import PathBuilder
from kubectl_ebpfnet.model.evidence import LIVE, PlaceKind, Record, pod_place
from kubectl_ebpfnet.model.net import TCP, endpoint_text, protocol_name
from kubectl_ebpfnet.model.node_pods import EXAMPLE_IMAGE, NO_IMAGE
from kubectl_ebpfnet.model.path import Fix, Target
from kubectl_ebpfnet.model.shell import word

_LATE = "that --timeout allows"  # collect/deadline.py
_NO_NODE_POD = ("no node pod: ", "no node pod can start on ")  # collect/ask, cluster/nodepods
_REFUSED = " refuses it: "  # cluster/client/failures.py
_INSTALLS = "kubectl ebpfnet node-pods --print-manifest"
_NOT_ASKED_FOR = (": not wanted", "deploys node pods")  # cli/agreement.py, cli/sources.py


def wants_port(walk: PathBuilder) -> bool:
    """Tell whether the first thing that is not known is a port that was not given."""
    return bool(walk.undecided) and WANTS_PORT in walk.undecided[0].reason


def how_to_get(walk: PathBuilder) -> Fix | None:
    """Return what would show more than the records do, None when nothing is known to help."""
    bundle = walk.cluster.bundle
    if wants_port(walk):
        return Fix("Name the port of the destination, HOST:PORT.")
    source = walk.ends.source
    own = pod_place(source.namespace, source.name)
    refused = [each for each in bundle.records if each.denied and _matters(walk, each)]
    # A far pod tells of the way back alone, and is asked last.
    refused.sort(key=lambda record: record.place.kind is PlaceKind.POD and record.place != own)
    denied = refused[0].denied if refused else ""
    if denied:
        return Fix(f"Grant the permission that is missing: {denied} ({tier_of_words(denied)}).")
    by_node_pod = any(each.place.kind is PlaceKind.NODE and each.ran for each in bundle.records)
    sender = _sender(source)
    there, protocol = walk.ends.destination, walk.ends.flow.protocol
    service = walk.ends.service
    if walk.ends.entry and there.kind == "service" and (not service or service.type == "NodePort"):
        known = there.address is not None  # a node port is no port of the Service
        there = replace(there, kind="address") if known else replace(there, port=None)
    if bundle.source != LIVE:
        to = _to_record(there, walk.ends.source.namespace, protocol)
        places = f"node/{word(walk.ends.entry)}" if walk.ends.entry else sender
        command = f"kubectl ebpfnet capture -o case.zip {places} --to {to} --node-access pod"
        return Fix("Record a new capture while the packets are lost.", command)
    size = f" --size {walk.size}" if walk.size is not None else ""
    via = f" --via node/{word(walk.ends.via)}" if walk.ends.via else ""
    again = f"kubectl ebpfnet path {sender} {_words(there, protocol)}{via}{size}"
    if any(_LATE in record.error for record in bundle.records):
        return Fix("Give the nodes more time to answer.", f"{again} --timeout 2m")
    again = f"{again} --node-access pod"
    if any(NO_IMAGE in record.error for record in bundle.records):
        return Fix("Name an image that the nodes can pull.", f"{again} --image {EXAMPLE_IMAGE}")
    if any(_REFUSED in record.error for record in bundle.records):
        return Fix("Have node pods installed by who may.", _INSTALLS)
    if by_node_pod or any(_failed(record) for record in bundle.records):
        return None
    return Fix("Let node pods read the nodes.", again)


def _failed(record: Record) -> bool:
    """Tell whether a node pod was wanted, and could not be had: to ask for it changes nothing."""
    return record.error.startswith(_NO_NODE_POD) and not record.error.endswith(_NOT_ASKED_FOR)


def _matters(walk: PathBuilder, record: Record) -> bool:
    """Tell whether what a user may not read is missing in this answer: a pod or a node that could
    not be asked, or a list that the reasons name. The other lists give names alone."""
    if record.place.kind is not PlaceKind.API:
        return True
    end = walk.end
    reasons = [each.reason for each in walk.undecided]
    reasons += [end.reason] if isinstance(end, Stopped) else []
    kind, name = record.argv[1] if len(record.argv) > 1 else record.denied, record.argv[-1]
    words = (kind.removesuffix("s"), record.denied, *([] if name.startswith("-") else [name]))
    return any(word.lower() in reason.lower() for word in words for reason in reasons)


def _sender(source: Target) -> str:
    """Return the source as `path` takes it."""
    if source.kind == "pod":
        return f"-n {word(source.namespace)} pod/{word(source.name)}"
    return f"node/{word(source.name)}" if source.kind == "node" else str(source.address)


def _words(target: Target, protocol: int) -> str:
    """Return the destination as `path` takes it."""
    namespace = f" --to-namespace {word(target.namespace)}" if target.namespace else ""
    flag = f" --protocol {protocol_name(protocol).lower()}" if protocol != TCP else ""
    if target.kind == "address" and target.address is not None:
        return endpoint_text(target.address, target.port) + flag
    return f"{_named(target)}{namespace}{flag}"


def _to_record(target: Target, namespace: str, protocol: int) -> str:
    """Return the destination as `capture --to` takes it: objects are those of the source's
    namespace, others are told by their address."""
    suffix = f"/{protocol_name(protocol).lower()}" if protocol != TCP else ""
    object_of_source = target.kind != "address" and target.namespace == namespace
    if target.address is not None and target.kind != "name" and not object_of_source:
        return endpoint_text(target.address, target.port) + suffix
    return _named(target) + suffix


def _named(target: Target) -> str:
    short = {"service": "svc/", "name": ""}.get(target.kind, f"{target.kind}/")
    port = f":{target.port}" if target.port is not None else ""
    return word(f"{short}{target.name or target.text}{port}")
