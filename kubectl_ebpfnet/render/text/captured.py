"""What a reader must know of a capture beside its answer: when it was made, and its note."""

from __future__ import annotations

from kubectl_ebpfnet.model.evidence import Bundle


def captured(bundle: Bundle) -> list[str]:
    """Return the sentences about a capture, [] for a live run or where nothing is said."""
    at = f"recorded {bundle.recorded}: ages and times to live are as of then"
    return [text for text in (at if bundle.recorded else "", bundle.note) if text]
