"""Which printer `-o` names, and what it is given: `json`, `jsonpath={.items[*].id}`, ….

Names and errors: kubectl's (k8s.io/cli-runtime/pkg/genericclioptions). Templates are those of
jsonpath.py; Go's own (`go-template`) are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.model.dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable

DOCUMENTS = ("json", "yaml", "jsonpath", "jsonpath-as-json", "jsonpath-file")
"""Formats that print a document, or a part of it."""
LISTS = ("table", "wide", "name", *DOCUMENTS, "custom-columns", "custom-columns-file")
"""Formats of a list: rows are its document's `items`."""
_TEMPLATES = ("jsonpath", "jsonpath-as-json", "jsonpath-file", "custom-columns",
              "custom-columns-file")  # fmt: skip
_LONGEST = 65536  # bytes of a template's file


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """What -o asks for.

    Attributes:
        name: `json`, `jsonpath`, …; that of a file's template is its own without `-file`.
        template: of jsonpath and custom-columns, "" for others.
    """

    name: str
    template: str = ""

    @property
    def word(self) -> str:
        """The value of -o, with the template of a file in it."""
        return f"{self.name}={self.template}" if self.template else self.name

    @property
    def of_document(self) -> bool:
        """Whether the document is printed, or a part of it."""
        return self.name in DOCUMENTS


def output_format(word: str, allowed: Sequence[str]) -> OutputFormat:
    """Read the value of -o.

    Args:
        word: as given: `NAME`, `NAME=TEMPLATE`, or for a file `NAME=FILE`.
        allowed: names that the command has.

    Raises:
        UsageError: no such format, no template, or a template that cannot be read.
    """
    name, equals, template = word.partition("=")
    if name not in allowed or (equals and name not in _TEMPLATES):
        raise UsageError(
            f'unable to match a printer suitable for the output format "{word}", '
            f"allowed formats are: {','.join(sorted(allowed))}"
        )
    if name not in _TEMPLATES:
        return OutputFormat(name)
    if not template:
        if name.startswith("custom-columns"):
            raise UsageError("custom-columns format specified but no custom columns given")
        raise UsageError("template format specified but no template given")
    if name.endswith("-file"):
        name, template = name.removesuffix("-file"), _read(template)
    if name.startswith("jsonpath"):
        from kubectl_ebpfnet.render.output.jsonpath_parser import parse

        parse(template)  # refused before any cluster is asked
    else:
        from kubectl_ebpfnet.render.output.custom_columns import parse_columns

        parse_columns(template)
    return OutputFormat(name, template)


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(_LONGEST + 1)
        if len(data) > _LONGEST:
            raise UsageError(f"error reading template {path}: longer than {_LONGEST} bytes")
        return data.decode()
    except OSError as error:
        raise UsageError(f"error reading template {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"error reading template {path}: not UTF-8") from error


def document_text(format_: OutputFormat, document: Callable[[], Any]) -> str:
    """Return a document, or the part of it that a template names, as text.

    Args:
        format_: one of DOCUMENTS.
        document: makes plain values: maps, lists, text, numbers.

    Raises:
        UsageError: the template does not fit the document.
    """
    if format_.name in ("json", "yaml"):
        from kubectl_ebpfnet.render.text.documents import safe_text

        return safe_text(document(), format_.name)
    from kubectl_ebpfnet.render.output.jsonpath import JsonPath

    template = JsonPath(format_.template)
    if format_.name == "jsonpath":
        return template.text(document())
    from kubectl_ebpfnet.render.output.go_text import indented_json

    return indented_json(template.values(document()))
