"""Words of a command that a user may copy into a shell.

A name that comes from a cluster, a capture or a packet may be anything: a device may be called
`$(id)`, a chain `a;b`. Whatever is no constant of this program is quoted here, so that a shell
takes it as the one word that it is.

Source: POSIX.1-2017, Shell Command Language, 2.2 (quoting).
"""

from __future__ import annotations


def word(text: object) -> str:
    """Return a word of a command, in quotes where a shell would read more into it than a word."""
    import shlex  # most answers have no command with a name in it

    return shlex.quote(str(text))
