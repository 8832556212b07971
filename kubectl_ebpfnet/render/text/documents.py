"""Plain values as JSON and YAML that are safe to print."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.render.text.style import is_visible

_NOT_ASCII = re.compile(r"[^\n -~]")


def safe_text(values: Any, format_name: str) -> str:
    """Return plain values as `json` or `yaml` that is safe to print."""
    return (safe_json if format_name == "json" else safe_yaml)(values)


def safe_json(values: Any) -> str:
    """Return plain values as JSON, indented by two spaces, with a newline at its end.

    Characters that a terminal would obey or would not show are JSON escapes: the text is safe to
    print, and equal for a parser.
    """
    return escaped_json(json.dumps(values, indent=2, ensure_ascii=False)) + "\n"


def escaped_json(text: str) -> str:
    """Return JSON with escapes for what a terminal would obey or would not show."""
    return _NOT_ASCII.sub(_escaped, text)


def safe_yaml(values: Any) -> str:
    """Return plain values as YAML that is safe to print."""
    import yaml  # 10 ms, for this format alone

    # PyYAML escapes every character beyond ASCII, or hardly any that a terminal obeys.
    harmless = all(map(is_visible, set(json.dumps(values, ensure_ascii=False))))
    return yaml.safe_dump(
        values, sort_keys=False, allow_unicode=harmless, width=2**20, default_flow_style=False
    )


def manifest_text(objects: Sequence[dict[str, Any]], format_name: str) -> str:
    """Return objects for `kubectl apply -f -`.

    Args:
        objects: of the API.
        format_name: `yaml`, a document each, or `json`, a List.

    Raises:
        UsageError: another format.
    """
    if format_name == "json":
        return safe_json({"apiVersion": "v1", "kind": "List", "items": list(objects)})
    if format_name != "yaml":
        raise UsageError(f"-o {format_name!r}: no such format", hint="one of: yaml, json")
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes texts of several lines as such, and nothing by reference."""

        def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
            return True

    def text(dumper: Dumper, value: str) -> Any:
        style = "|" if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return yaml.dump_all(
        objects, Dumper=Dumper, sort_keys=False, width=2**20, default_flow_style=False
    )


def _escaped(match: re.Match[str]) -> str:
    character = match.group()
    return character if is_visible(character) else json.dumps(character)[1:-1]
