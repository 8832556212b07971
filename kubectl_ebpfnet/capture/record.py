"""A record as JSON, as every form of a capture has it.

The format is documented in docs/captures.md. Reading is strict about types, since a capture comes
from a stranger, and ignores unknown members, since a later version may add some.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from kubectl_ebpfnet.capture.spool import short_stderr
from kubectl_ebpfnet.errors import BundleError
from kubectl_ebpfnet.model.evidence import InMemory, Output, Place, PlaceKind, Record

SCHEMA = "ebpfnet.dev/bundle/v1"
_FAMILY = "ebpfnet.dev/bundle/v"

MEMBER = re.compile(r"records/[0-9]{1,9}\.(out|err)(\.[0-9]{1,9})?")
"""Allowed names of an output's file: none leads out of the capture's folder."""

RECORD_LIMIT = 250_000
FILE_LIMIT = 100_000
TOTAL_LIMIT = 16 << 30
MEMORY_LIMIT = 256 << 20
VALUE_LIMIT = 4_000_000
"""Values of a bundle.json, or of a .jsonl line: each takes 3 bytes there and 100 in memory."""
_WORD_BYTES = 64  # overhead of a short text in memory


class Allowance:
    """Counts what the records of one capture take, in any form: a file that two records name counts
    twice. A method raises BundleError when a limit is exceeded."""

    def __init__(self, source: str, total: int = TOTAL_LIMIT) -> None:
        """`source` names the capture in errors; `total` limits the bytes of all outputs."""
        self._source = source
        self._total = total
        self._records = self._files = self._bytes = self._in_memory = 0

    def count_record(self) -> None:
        """Count a record."""
        self._records += 1
        if self._records > RECORD_LIMIT:
            raise BundleError(f"{self._source} has more than {RECORD_LIMIT} records")

    def count_files(self, files: int, size: int) -> None:
        """Count the files of an output and their bytes together."""
        self._files += files
        self._bytes += size
        if self._files > FILE_LIMIT:
            raise BundleError(f"{self._source}: its records name more than {FILE_LIMIT} files")
        if self._bytes > self._total:
            raise BundleError(
                f"{self._source}: its records name more than {self._total >> 20} MiB of outputs"
            )

    def count_memory(self, size: int) -> None:
        """Count bytes that stay in memory."""
        self._in_memory += size
        if self._in_memory > MEMORY_LIMIT:
            raise BundleError(
                f"{self._source}: its short texts are longer than {MEMORY_LIMIT >> 20} MiB",
                hint="a zip holds outputs that are not read until they are needed",
            )


Opener = Callable[[Any, Any, str], Output]
"""Opens the Output of the values of `stdout_file` and `stdout_lines` (or stderr's); the text names
the record in errors."""


def check_schema(schema: object, source: str) -> None:
    """Check that this version can read a schema.

    Raises:
        BundleError: the schema is newer, or not a capture's.
    """
    if schema == SCHEMA:
        return
    if isinstance(schema, str) and schema.startswith(_FAMILY):
        raise BundleError(
            f"{source} has the schema {schema!r}, and this version reads {SCHEMA!r}",
            hint="it was written by a newer kubectl-ebpfnet: update this one",
        )
    raise BundleError(f"{source} is not a capture of kubectl-ebpfnet: no schema {SCHEMA!r} in it")


def as_json(record: Record) -> dict[str, Any]:
    """Return the record without its outputs; empty members are left out."""
    where = {
        "kind": record.place.kind.value,
        "node": record.place.node,
        "namespace": record.place.namespace,
        "pod": record.place.pod,
    }
    optional = {
        "started": record.started,
        "error": record.error,
        "denied": record.denied,
        "kept": list(record.line_filter),
    }
    return {
        "number": record.number,
        "where": {key: value for key, value in where.items() if value},
        "argv": list(record.argv),
        "exit_code": record.exit_code,
        **{key: value for key, value in optional.items() if value},
    }


def from_json(
    value: object, number: int, label: str, opener: Opener, allowance: Allowance
) -> Record:
    """Return the record of a JSON object.

    Args:
        value: the decoded JSON.
        number: the record's position in its bundle.
        label: names the object in errors, e.g. "x.jsonl, line 3".
        opener: opens the outputs that are files.
        allowance: limits of the whole capture.

    Raises:
        BundleError: a member is missing or of the wrong type, or the capture is too large.
    """
    allowance.count_record()
    if not isinstance(value, dict):
        raise BundleError(f"{label}: a record must be a JSON object")
    place = _place(value.get("where"), label)
    exit_code = value.get("exit_code")
    if isinstance(exit_code, bool) or not isinstance(exit_code, int | None):
        raise BundleError(f"{label}: exit_code must be a whole number or null")
    argv = _words(value.get("argv"), "argv", label)
    if not argv:
        raise BundleError(f"{label}: argv is missing or empty")
    kept = _words(value.get("kept", []), "kept", label)
    stdout = _output(value, "stdout", label, opener)
    stderr = short_stderr(_output(value, "stderr", label, opener))
    in_memory = len(stdout.data) if isinstance(stdout, InMemory) else 0
    allowance.count_memory(
        in_memory + len(stderr) + sum(len(word) + _WORD_BYTES for word in argv + kept)
    )
    return Record(
        number=number,
        place=place,
        argv=argv,
        exit_code=exit_code,
        stdout=stdout,
        stderr=stderr,
        started=_text(value, "started", label),
        error=_text(value, "error", label),
        denied=_text(value, "denied", label),
        line_filter=kept,
    )


def _place(where: object, label: str) -> Place:
    if not isinstance(where, dict):
        raise BundleError(f"{label}: where is missing or not an object")
    kind = where.get("kind")
    if kind not in list(PlaceKind):
        raise BundleError(f"{label}: unknown kind of place {kind!r}")
    return Place(
        PlaceKind(kind),
        node=_text(where, "node", label),
        namespace=_text(where, "namespace", label),
        pod=_text(where, "pod", label),
    )


def _output(value: dict[str, Any], name: str, label: str, opener: Opener) -> Output:
    member = value.get(f"{name}_file")
    if member is not None:
        return opener(member, value.get(f"{name}_lines"), label)
    text = value.get(name, "")
    if not isinstance(text, str):
        raise BundleError(f"{label}: an output must be text")
    return InMemory(encoded(text, label))


def _text(value: dict[str, Any], name: str, label: str) -> str:
    text = value.get(name, "")
    if not isinstance(text, str):
        raise BundleError(f"{label}: {name} must be text")
    return text


def _words(value: object, name: str, label: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise BundleError(f"{label}: {name} must be a list of texts")
    return tuple(value)


def file_names(value: object, label: str) -> tuple[str, ...]:
    """Return the files of an output: one, or the parts of a long output in order.

    Raises:
        BundleError: a name is not allowed.
    """
    names = (value,) if isinstance(value, str) else _words(value, "an output's file", label)
    for name in names:
        if not MEMBER.fullmatch(name):
            raise BundleError(f"{label}: not a name of an output: {name!r}")
    return names


def encoded(text: str, label: str) -> bytes:
    """Return the bytes of an output in JSON text; a lone low surrogate stands for a raw byte.

    Raises:
        BundleError: a surrogate stands for no byte.
    """
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise BundleError(f"{label}: text that is not Unicode at character {error.start}") from None


def read_index(
    text: bytes, source: str, opener: Opener, allowance: Allowance
) -> tuple[dict[str, Any], list[Record]]:
    """Return the object of a `bundle.json`, and its records.

    Args:
        text: the JSON.
        source: names the capture in errors.
        opener: opens the outputs that are files.
        allowance: limits of the whole capture.

    Raises:
        BundleError: the text is no index of a capture, or its schema is newer.
    """
    import json

    if sum(map(text.count, (b",", b"[", b"{"))) > VALUE_LIMIT:
        raise BundleError(f"{source}: bundle.json holds more than {VALUE_LIMIT} values")
    try:
        index = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{source}: bundle.json is not JSON: {error}") from None
    if not isinstance(index, dict):
        raise BundleError(f"{source}: bundle.json is not a JSON object")
    check_schema(index.get("schema"), source)
    values = index.get("records", [])
    if not isinstance(values, list):
        raise BundleError(f"{source}: records must be a list")
    label = f"{source}, record"
    return index, [
        from_json(value, number, f"{label} {number}", opener, allowance)
        for number, value in enumerate(values, start=1)
    ]
