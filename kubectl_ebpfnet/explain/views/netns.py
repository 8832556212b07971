"""The network namespace of a pod or a node, by its records.

A missing answer carries the reason, in words that a hop can show.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.explain.views import readers
from kubectl_ebpfnet.explain.views.answer import Answer
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.evidence import LIVE, Bundle, Place, pod_place
from kubectl_ebpfnet.model.kernel import (
    Attachment,
    FibAnswer,
    InterfaceAddress,
    Link,
    Neighbour,
    Route,
)
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.protocol.questions import node_argv


class Netns:
    """The network namespace of a pod or a node."""

    def __init__(self, bundle: Bundle, places: Sequence[Place]) -> None:
        self.bundle = bundle
        self.places = tuple(places)

    def answer(self, question: q.Fact, table: Sequence[Any]) -> Answer[Any]:
        """Return the parsed answer of the first place that has one; `table` is of readers.py."""
        missing = ""
        failed = None
        for place in self.places:
            record = q.best_record(self.bundle, place, question)
            if record is None:
                continue
            if not record.ok:
                missing = missing or record.why_not()
                failed = failed or record
                continue
            try:
                return Answer(tuple(readers.read(record, table)), record)
            except ParseError as error:
                missing, failed = str(error), record
        return Answer((), failed, missing or self._never_asked(question))

    def look_up(self, how: str, source: Address, destination: Address) -> Answer[FibAnswer]:
        """Return the kernel's own routing decision for a packet, where a node pod recorded it.

        Args:
            how: `fib` for a packet of this namespace; `forward` on a node for a packet that comes
                from the pod with the source address.
            source, destination: of the packet.
        """
        argv = node_argv(how, *q.packet_words(source, destination))
        for place in self.places:
            record = self.bundle.record(place, argv)
            if record is not None and record.ok:
                try:
                    return Answer(tuple(readers.read(record, readers.NODE_SIDE)), record)
                except ParseError as error:
                    return Answer((), record, str(error))
        return Answer((), None, "the kernel was not asked")

    def _never_asked(self, question: q.Fact) -> str:
        for place in self.places:
            for record in self.bundle.at(place):
                if not record.ran and record.error:
                    return record.error
        place = self.places[-1]
        if not any(self.bundle.at(place) for place in self.places):
            return f"nothing is recorded of {place}"
        command = f"`{' '.join((question.forms or question.answers)[0])}` of {place}"
        if self.bundle.source == LIVE:
            return f"{command} was not asked for"
        return f"the capture lacks {command}"


class PodNetns(Netns):
    """A pod's own network namespace."""

    def __init__(self, bundle: Bundle, namespace: str, name: str) -> None:
        """View a pod's namespace.

        Args:
            bundle: all records.
            namespace: of the pod.
            name: of the pod.
        """
        super().__init__(bundle, (pod_place(namespace, name),))

    @cached_property
    def links(self) -> Answer[Link]:
        """Devices in the pod."""
        return self.answer(q.POD_LINKS, readers.LINKS)

    @cached_property
    def addresses(self) -> Answer[InterfaceAddress]:
        """Addresses in the pod."""
        return self.answer(q.POD_ADDRESSES, readers.ADDRESSES)

    @cached_property
    def neighbours(self) -> Answer[Neighbour]:
        """The pod's neighbour table."""
        return self.answer(q.POD_NEIGHBOURS, readers.NEIGHBOURS)

    @cached_property
    def attachments(self) -> Answer[Attachment]:
        """Programs at the hooks of the pod's namespace and cgroups, by the node side."""
        return self.answer(q.ATTACHMENTS, readers.NODE_SIDE)

    @cached_property
    def iflink(self) -> Answer[int]:
        """ifindex of the host side of eth0."""
        return self.answer(q.POD_IFLINK, readers.IFLINK)

    def routes(self, version: int) -> Answer[Route]:
        """Return the pod's routes of one IP version, 4 or 6."""
        return self.answer(q.POD_ROUTES if version == 4 else q.POD_ROUTES6, readers.ROUTES)
