"""The answer as text: pure functions from a `Path` and its `Bundle` to a string.

    view.py       how it is looked at: width, colour, how much
    style.py      colour, and making hostile characters visible
    wrap.py       breaking text into lines of a width
    phrases.py    the answer's pieces in words: headline, packet, tracked entries
    proof.py      the lines of evidence
    opening.py    the headline, and what is to be known of a capture
    table.py      -o table and wide, what one reads by default
    tracked.py    the joined view of the three tracking tables
    tree.py       -o tree
    json_.py      -o json and yaml, documented in docs/json.md
    graph.py      -o mermaid and dot
    formats.py    the name of a format → its text

Nothing above this room knows colour, tables or JSON. Every text of a cluster passes
`style.escape` once, where it is put into a line.
"""
