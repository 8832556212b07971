"""The picture of a packet's way: frames around boxes, edges between them."""

from __future__ import annotations

from kubectl_ebpfnet.model.net import Flow, endpoint_text
from kubectl_ebpfnet.render.html.elements import Html, joined, spoken, tag


def frame(title: str, *inside: str, inner: bool = False) -> Html:
    """Return what stands around boxes: a node, or a pod or device in it.

    Args:
        title: its name.
        inside: boxes and edges, in the packet's order.
        inner: it stands in another frame.
    """
    heading = tag("h4" if inner else "h3", title)
    return tag("div", heading, *inside, class_="part" if inner else "frame")


def edge(*inside: str) -> Html:
    """Return the way from one box to the next, with what changed on it."""
    return tag("div", *inside, class_="edge tuple" if inside else "edge")


def tuple_on_edge(flow: Flow, before: Flow | None, outer: str = "") -> Html:
    """Return a packet's tuple; what differs from the one before stands out.

    Args:
        flow: the packet.
        before: as it was on the edge before, None for the first.
        outer: what encapsulates it, in words.
    """
    ends = [endpoint_text(flow.source, flow.source_port)]
    ends.append(endpoint_text(flow.destination, flow.destination_port))
    old = ["", ""]
    if before is not None:
        old[0] = endpoint_text(before.source, before.source_port)
        old[1] = endpoint_text(before.destination, before.destination_port)
    shown = [
        tag("b", end) if before is not None and end != was else tag("span", end)
        for end, was in zip(ends, old, strict=True)
    ]
    inside = joined(shown[0], " → ", shown[1])
    around = [tag("code", outer, class_="outer")] if outer else []
    return edge(tag("code", inside), *around)


def mark(sign: str, words: str) -> Html:
    """Return a mark, and what it means for those who do not see it."""
    return tag("span", tag("span", sign, aria_hidden="true"), spoken(words), class_="mark")
