"""The recordings of a real cluster that ship with the program: `--from demo`, `demo:dropped`, …

tests/demo makes them.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.errors import BundleError
from kubectl_ebpfnet.model.evidence import Bundle

FOLDER = Path(__file__).parent.parent / "demo"
DEMOS = {"demo": "delivered", "demo:dropped": "dropped", "demo:unknown": "unknown"}
"""The name of each, and of its file in FOLDER."""


def is_demo(capture: str) -> bool:
    """Tell whether a word of --from names a demo, one that exists or not: `./demo` is a file."""
    return capture == "demo" or capture.startswith("demo:")


def open_demo(name: str) -> Bundle:
    """Open a demo by its name. Raises BundleError when there is none of this name."""
    if name not in DEMOS:
        raise BundleError(
            f"no such demo: {name}",
            hint=f"demos: {', '.join(DEMOS)}; a file of this name: ./{name}",
        )
    return dataclasses.replace(open_bundle(FOLDER / f"{DEMOS[name]}.zip"), source=name)
