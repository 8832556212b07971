"""Ask for a list of `flows` or `programs`, and lay the answer out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kubectl_ebpfnet.cli.list_arguments import ListRead, Requested
from kubectl_ebpfnet.collect.lists import ListReader
from kubectl_ebpfnet.collect.scope import Scope, flows_scope
from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.fact import Need
from kubectl_ebpfnet.model.protocol.questions import FlowFilter
from kubectl_ebpfnet.render.lists.listing import Listing

Answer = tuple[Listing[Any], Bundle, bool]
"""A list, what it was made of, and whether it is known: nothing in it then means that there is
nothing."""


def flows(
    reader: ListReader, wanted: Requested, peers: Sequence[FlowFilter], *, everything: bool
) -> Answer:
    """Ask for flows.

    Args:
        reader: of the cluster or the capture.
        wanted: whose flows.
        peers: filters of the other end.
        everything: flows that are over too, and more than the newest.
    """
    from kubectl_ebpfnet.explain.flows import listing as flow_lists
    from kubectl_ebpfnet.explain.flows.of_pods import of_pods
    from kubectl_ebpfnet.render.lists.flows import listing

    peers, most, alive = tuple(peers), None if everything else flow_lists.MOST, not everything
    read = wanted.read(
        reader,
        lambda addresses: flows_scope(addresses, peers, everything=everything),
        lambda one: (
            flow_lists.of_node(one.node, one.bundle, peers, most, alive=alive)
            if one.node
            else flow_lists.of_pod(one.namespace, one.pod, one.bundle, peers, most, alive=alive)
        ),
        lambda pods: of_pods(pods.pods, pods.target, pods.bundle, peers, most, alive=alive),
    )
    found = replace(read.answer, missing=(*_left_out(read.left_out), *read.answer.missing))
    several = wanted.target is None
    return _shown(listing(found, several=several), read), read.bundle, found.known


def programs(reader: ListReader, wanted: Requested, *, unfold: bool) -> Answer:
    """Ask for programs.

    Args:
        reader: of the cluster or the capture.
        wanted: whose programs.
        unfold: show each program of socket load-balancing.
    """
    from kubectl_ebpfnet.explain.programs import listing as program_lists
    from kubectl_ebpfnet.render.lists.programs import listing

    read = wanted.read(
        reader,
        lambda _: Scope(Need.PROGRAMS),
        lambda one: (
            program_lists.of_node(one.node, one.bundle)
            if one.node
            else program_lists.of_pod(one.namespace, one.pod, one.bundle)
        ),
        lambda pods: program_lists.of_pods(pods.pods, pods.target, pods.bundle),
    )
    found = replace(read.answer, missing=(*_left_out(read.left_out), *read.answer.missing))
    several = wanted.target is None
    made = listing(found, several=several, unfold=unfold)
    return _shown(made, read), read.bundle, found.known


def _shown(made: Listing[Any], read: ListRead) -> Listing[Any]:
    """Return the list; where it is of no pod, it says so."""
    return replace(made, nothing=f"No resources found: no {read.nobody}") if read.nobody else made


def _left_out(pods: int) -> tuple[str, ...]:
    return (f"{pods:,} more pods, which were not asked: -n or -l choose others",) if pods else ()
