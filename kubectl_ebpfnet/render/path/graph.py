"""`-o mermaid` and `-o dot`: the path as a drawing for a page that draws one of these itself.

Nodes are boxes around the pods and devices in them, these around their hops. A hop's mark and
colour tell how it is known; an edge bears the tuple where it changes.

Labels hold untrusted text, which must not be read as syntax. Mermaid: a label in double quotes,
where every character that is not a plain letter, digit or blank is an entity code `#NN;`
(mermaid.js.org/syntax/flowchart, "Entity codes to escape characters"), and `<br>` breaks a line.
DOT: a quoted ID in which a backslash and a quote are escaped, and `&`, which would begin an entity
of HTML; `\\l` ends a line (graphviz.org/doc/info/lang.html; escString).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.path import Hop, Packet, Path
from kubectl_ebpfnet.render.path import phrases
from kubectl_ebpfnet.render.path.frames import Frame, changes, frames, mark
from kubectl_ebpfnet.render.path.headline import because
from kubectl_ebpfnet.render.path.way import kind_of
from kubectl_ebpfnet.render.text.style import escape
from kubectl_ebpfnet.render.text.wrap import wrap

_PLAIN = re.compile(r"[^A-Za-z0-9 .,:/()→_+-]")
_OF_DOT = str.maketrans({"\\": r"\\", '"': r"\"", "&": "&amp;"})
_COLUMNS = 40
"""Columns of a line of a label."""


@dataclass(frozen=True, slots=True)
class _Look:
    """How a hop with a mark is drawn: the colours are those of `-o html` on paper."""

    name: str
    mermaid: str
    dot: str


_LOOKS = {
    "✓": _Look("seen", "stroke:#116329,stroke-width:2px", 'color="#116329"'),
    "~": _Look("derived", "stroke:#59636e,stroke-width:2px", 'color="#59636e"'),
    "?": _Look("unknown", "stroke:#7a4b00,stroke-dasharray:5 5", 'color="#7a4b00", style="dashed"'),
    "✗": _Look(
        "dropped",
        "stroke:#b3151d,stroke-width:4px,fill:#ffebe9,color:#1b1f24",
        'color="#b3151d", penwidth="3", style="filled", fillcolor="#ffebe9"',
    ),
}


@dataclass(frozen=True, slots=True)
class _Way:
    """A way, there or back: how the names of its hops and the titles of its frames begin."""

    prefix: str
    title: str
    hops: Sequence[Hop]

    def name(self, hop: Hop) -> str:
        return f"{self.prefix}{hop.number}"

    def labels(self) -> dict[int, list[str]]:
        """Return the lines of each hop's label, escaped for a terminal, by its number."""
        labels: dict[int, list[str]] = {}
        before: Packet | None = None
        for hop in self.hops:
            text = wrap(escape(phrases.in_short(hop)), _COLUMNS)
            labels[hop.number] = [f"{mark(hop)} {hop.number} {kind_of(hop, before)}", *text]
            before = hop.packet
        return labels

    def frames(self) -> Iterator[tuple[str, Frame]]:
        for number, frame in enumerate(frames(self.hops), start=1):
            yield f"{self.prefix}_frame{number}", frame

    def edges(self) -> Iterator[tuple[str, str, list[str]]]:
        """Yield each edge: the hops that it joins, and the lines of its label."""
        before: Packet | None = None
        for index, hop in enumerate(self.hops[:-1]):
            label = _tuple(hop.packet) if changes(hop.packet, before) else []
            yield self.name(hop), self.name(self.hops[index + 1]), label
            before = hop.packet


def mermaid(path: Path) -> str:
    """Return a Mermaid flowchart."""
    # Labels bring their own line breaks; a title is drawn in one line, however long.
    lines = ["---", f"title: {_front_matter(_title(path))}"]
    lines += ["config:", "  flowchart:", "    wrappingWidth: 500", "---", "flowchart TB"]
    looks: dict[str, list[str]] = {}
    for way in _ways(path):
        for name, frame in way.frames():
            lines += _mermaid_frame(way, name, frame)
        for one, other, label in way.edges():
            text = f'|"{_mermaid(label)}"| ' if label else ""
            lines.append(f"  {one} --> {text}{other}")
        for hop in way.hops:
            looks.setdefault(mark(hop), []).append(way.name(hop))
    for sign, names in looks.items():
        look = _LOOKS[sign]
        lines.append(f"  classDef {look.name} {look.mermaid}")
        lines.append(f"  class {','.join(names)} {look.name}")
    return "\n".join(lines) + "\n"


def _mermaid_frame(way: _Way, name: str, frame: Frame) -> Iterator[str]:
    labels = way.labels()
    yield f'  subgraph {name}["{_mermaid([way.title + frame.title])}"]'
    # A box that no edge leaves would otherwise be drawn from left to right.
    yield "    direction TB"
    for number, part in enumerate(frame.parts, start=1):
        hops = [f'{way.name(hop)}["{_mermaid(labels[hop.number])}"]' for hop in part.hops]
        if part.title:
            yield f'    subgraph {name}_part{number}["{_mermaid([part.title])}"]'
            yield "      direction TB"
            yield from (f"      {hop}" for hop in hops)
            yield "    end"
        else:
            yield from (f"    {hop}" for hop in hops)
    yield "  end"


def dot(path: Path) -> str:
    """Return a Graphviz digraph."""
    title = [line for text in (_title(path), *because(path)) for line in _wrapped(text)]
    lines = [
        "digraph path {",
        f"  label={_dot(title)};",
        '  labelloc="t"; labeljust="l"; fontname="monospace"; fontsize="11";',
        '  node [shape="box", fontname="monospace", fontsize="10"];',
        '  edge [fontname="monospace", fontsize="10"];',
    ]
    for way in _ways(path):
        for name, frame in way.frames():
            lines += _dot_frame(way, name, frame)
        for one, other, label in way.edges():
            lines.append(f"  {one} -> {other}{f' [label={_dot(label)}]' if label else ''};")
    return "\n".join([*lines, "}"]) + "\n"


def _dot_frame(way: _Way, name: str, frame: Frame) -> Iterator[str]:
    labels = way.labels()
    yield f"  subgraph cluster_{name} {{"
    yield f"    label={_dot([way.title + frame.title])};"
    for number, part in enumerate(frame.parts, start=1):
        hops = [
            f"{way.name(hop)} [label={_dot(labels[hop.number])}, {_LOOKS[mark(hop)].dot}];"
            for hop in part.hops
        ]
        if part.title:
            yield f"    subgraph cluster_{name}_part{number} {{"
            yield f'      label={_dot([part.title])}; style="dashed";'
            yield from (f"      {hop}" for hop in hops)
            yield "    }"
        else:
            yield from (f"    {hop}" for hop in hops)
    yield "  }"


def _ways(path: Path) -> Iterator[_Way]:
    """Yield the way, and the way back where it is not as usual."""
    yield _Way("hop", "", path.hops)
    if path.answer is not None and not phrases.is_as_usual(path.answer):
        yield _Way("back", "way back: ", path.answer.hops)


def _title(path: Path) -> str:
    return f"{path.verdict.value.upper()} {phrases.ends_of(path)}"


def _wrapped(text: str) -> list[str]:
    return wrap(escape(text), 2 * _COLUMNS)


def _tuple(packet: Packet) -> list[str]:
    source, destination = phrases.ends(packet.flow).split(" → ")
    outer = phrases.encapsulation(packet)
    return [source, f"→ {destination}", *([outer] if outer else [])]


def _mermaid(lines: Sequence[str]) -> str:
    return "<br>".join(_PLAIN.sub(lambda m: f"#{ord(m.group())};", escape(line)) for line in lines)


def _dot(lines: Sequence[str]) -> str:
    """Return a label; one of several lines has each at its left."""
    quoted = [escape(line).translate(_OF_DOT) for line in lines]
    text = quoted[0] if len(quoted) == 1 else "".join(line + "\\l" for line in quoted)
    return f'"{text}"'


def _front_matter(text: str) -> str:
    # Mermaid reads its front matter as YAML, but looks for %%{directives}%% in the raw text
    # before: other characters are written as escapes of YAML's double quotes.
    plain = _PLAIN.sub(lambda match: f"\\U{ord(match.group()):08x}", escape(text))
    return f'"{plain}"'
