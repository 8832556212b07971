"""`python -m tests.docs`: write what the program prints now into the pages, to be read in the diff:
the examples of README.md, CONTRIBUTING.md and docs/, and the help on the pages of docs/commands.
"""

from __future__ import annotations

from tests.docs.pages import DOCUMENTS, ROOT, has_examples, renewed


def main() -> None:
    """Write all of them; print which have changed."""
    for page in filter(has_examples, DOCUMENTS):
        text = renewed(page)
        if page.read_text() != text:
            page.write_text(text)
            print(page.relative_to(ROOT))


if __name__ == "__main__":
    main()
