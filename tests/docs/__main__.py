"""`python -m tests.docs`: write what the program prints now into the pages, to be read in the diff.

Examples of README.md, CONTRIBUTING.md and docs/, and the help texts in docs/cli, which the pages of
docs/commands include.
"""

from __future__ import annotations

from kubectl_ebpfnet.cli.app import COMMANDS
from tests.cli.console import run
from tests.docs.pages import DOCUMENTS, ROOT, has_examples, renewed


def main() -> None:
    """Write all of them; print which have changed."""
    made = {page: renewed(page) for page in DOCUMENTS if has_examples(page)}
    texts = {"ebpfnet": (), **{name: (name,) for name in COMMANDS}}
    for name, words in texts.items():
        made[ROOT / "docs" / "cli" / f"{name}.txt"] = run(*words, "--help").stdout
    for file, text in made.items():
        if not file.exists() or file.read_text() != text:
            file.write_text(text)
            print(file.relative_to(ROOT))


if __name__ == "__main__":
    main()
