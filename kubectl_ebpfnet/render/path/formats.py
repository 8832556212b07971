"""The output formats of `path`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.render.text.view import View

if TYPE_CHECKING:
    from kubectl_ebpfnet.model.path import Path

MODULES = {
    "table": "kubectl_ebpfnet.render.path.table",
    "wide": "kubectl_ebpfnet.render.path.table",
    "json": "kubectl_ebpfnet.render.path.document",
    "yaml": "kubectl_ebpfnet.render.path.document",
    "html": "kubectl_ebpfnet.render.path.page",
    "mermaid": "kubectl_ebpfnet.render.path.graph",
    "dot": "kubectl_ebpfnet.render.path.graph",
}
"""Format → its module, so that a caller can import it while it waits for the cluster."""
FORMATS = tuple(MODULES)
TEMPLATES = ("jsonpath", "jsonpath-as-json", "jsonpath-file")
"""Formats that print a part of the document."""
MODULES |= dict.fromkeys(TEMPLATES, MODULES["json"])
NAMES = (*FORMATS, *(f"{name}=…" for name in TEMPLATES))
"""Formats as help texts name them."""


def checked(word: str) -> str:
    """Return the value of -o, the template of a file in it.

    Raises:
        UsageError: no such format, or a template that cannot be read.
    """
    if word in FORMATS:
        return word
    from kubectl_ebpfnet.render.output.formats import output_format

    return output_format(word, tuple(MODULES)).word


def render(path: Path, bundle: Bundle, format_name: str, view: View) -> str:
    """Return the answer as text that ends with a newline.

    Args:
        path: the answer.
        bundle: what the path was explained from; evidence is quoted from it.
        format_name: one of FORMATS, or `jsonpath=TEMPLATE` as `checked` returns it.
        view: for table and wide; the others are for programs and look the same everywhere.

    Raises:
        UsageError: no such format, or a template that does not fit the document.
    """
    if format_name not in FORMATS:
        from kubectl_ebpfnet.render.output.formats import document_text, output_format
        from kubectl_ebpfnet.render.path.document import document

        wanted = output_format(format_name, tuple(MODULES))
        return document_text(wanted, lambda: document(path, bundle))
    # Import the requested format only.
    match format_name:
        case "table" | "wide":
            from kubectl_ebpfnet.render.path.table import table, wide

            return (table if format_name == "table" else wide)(path, bundle, view)
        case "json" | "yaml":
            from kubectl_ebpfnet.render.path.document import document
            from kubectl_ebpfnet.render.text.documents import safe_text

            return safe_text(document(path, bundle), format_name)
        case "html":
            from kubectl_ebpfnet.render.path.page import page

            return page(path, bundle)
        case "mermaid" | "dot":
            from kubectl_ebpfnet.render.path.graph import dot, mermaid

            return (mermaid if format_name == "mermaid" else dot)(path)
    raise ValueError(f"no format {format_name!r}; there are {', '.join(FORMATS)}")
