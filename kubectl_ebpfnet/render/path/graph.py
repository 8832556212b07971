"""`-o mermaid` and `-o dot`: the path as a drawing, places as boxes around their hops.

Labels hold untrusted text, which must not be read as syntax. Mermaid: a label in
double quotes, and every character that is not a plain letter, digit or blank as an entity code
`#NN;` (mermaid.js.org/syntax/flowchart, "Entity codes to escape characters"). DOT: a quoted ID in
which a backslash and a quote are escaped (graphviz.org/doc/info/lang.html; escString).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from kubectl_ebpfnet.model.path import Hop, Path, State
from kubectl_ebpfnet.render.path import phrases
from kubectl_ebpfnet.render.path.tree import branches
from kubectl_ebpfnet.render.text.style import escape

_PLAIN = re.compile(r"[^A-Za-z0-9 .,:/()→_+-]")


def mermaid(path: Path) -> str:
    """Return a Mermaid flowchart; unknown hops are dashed, the hop that drops is marked."""
    lines = ["---", f"title: {_front_matter(_title(path))}", "---", "flowchart TD"]
    drawn = _drawn(path)
    for number, (title, hops) in enumerate(_boxes(path), start=1):
        lines.append(f'  subgraph place{number}["{_mermaid(title)}"]')
        lines += [f'    {name}["{_mermaid(_label(hop))}"]' for name, hop in hops]
        lines.append("  end")
    lines += [f"  {a} --> {b}" for a, b in pairwise(drawn)]
    lines += ["  classDef drops stroke:#c00,stroke-width:3px"]
    lines += ["  classDef unknown stroke-dasharray:5 5"]
    lines += [f"  class {name} drops" for name, hop in drawn.items() if hop.drops]
    lines += [f"  class {name} unknown" for name, h in drawn.items() if h.state is State.UNKNOWN]
    return "\n".join(lines) + "\n"


def dot(path: Path) -> str:
    """Return a Graphviz digraph; unknown hops are dashed, the hop that drops is red."""
    lines = ["digraph path {", f"  label={_dot(_title(path))};", '  labelloc="t";']
    lines.append('  node [shape="box"];')
    for number, (title, hops) in enumerate(_boxes(path), start=1):
        lines.append(f"  subgraph cluster_{number} {{")
        lines.append(f"    label={_dot(title)};")
        lines += [f"    {name} [label={_dot(_label(hop))}{_look(hop)}];" for name, hop in hops]
        lines.append("  }")
    lines += [f"  {a} -> {b};" for a, b in pairwise(_drawn(path))]
    return "\n".join([*lines, "}"]) + "\n"


def _boxes(path: Path) -> Iterator[tuple[str, list[tuple[str, Hop]]]]:
    """Yield the places with their hops, each by its name in the drawing; those of the way back too,
    where it is not as usual."""
    for title, hops in branches(path.hops):
        yield title, [(f"hop{hop.number}", hop) for hop in hops]
    if path.answer is None or phrases.is_as_usual(path.answer):
        return
    for title, hops in branches(path.answer.hops):
        yield f"way back: {title}", [(f"back{hop.number}", hop) for hop in hops]


def _drawn(path: Path) -> dict[str, Hop]:
    return {name: hop for _, hops in _boxes(path) for name, hop in hops}


def _title(path: Path) -> str:
    headline = phrases.headline(path)
    return f"{headline.before}{headline.verdict}{headline.after}"


def _label(hop: Hop) -> str:
    return f"{hop.number} {hop.kind}: {phrases.does(hop)}"


def _look(hop: Hop) -> str:
    style = ', style="dashed"' if hop.state is State.UNKNOWN else ""
    return f'{style}, color="red"' if hop.drops else style


def _mermaid(text: str) -> str:
    return _PLAIN.sub(lambda match: f"#{ord(match.group())};", escape(text))


def _dot(text: str) -> str:
    inner = escape(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{inner}"'


def _front_matter(text: str) -> str:
    # Mermaid reads its front matter as YAML, but looks for %%{directives}%% in the raw text
    # before: other characters are written as escapes of YAML's double quotes.
    plain = _PLAIN.sub(lambda match: f"\\U{ord(match.group()):08x}", escape(text))
    return f'"{plain}"'
