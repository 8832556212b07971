"""Answers questions with the program of one tree: python answer.py TREE QUESTIONS ANSWERS.

QUESTIONS is a JSON list of lists of words. ANSWERS becomes one JSON list a line: the exit code,
stdout and stderr. It runs with either tree, so it imports nothing of tests, and of the program
only its entry.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

Main = Callable[[list[str]], int]


def answer(main: Main, words: list[str]) -> tuple[int, str, str]:
    """The exit code, stdout and stderr of one run of the program."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", newline="") for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(words)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except Exception:
            # The program catches what it raises; what comes here is an answer that differs.
            traceback.print_exc()
            code = 1
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode("utf-8", "backslashreplace"))
    return code, texts[0], texts[1]


def _main_of(tree: str) -> Main:
    # The first entry wins over an editable install; what was imported is looked at all the same.
    sys.path.insert(0, tree)
    package = importlib.import_module("kubectl_ebpfnet")
    origin = Path(str(package.__file__)).resolve()
    if not origin.is_relative_to(Path(tree).resolve()):
        raise SystemExit(f"{origin} was imported, not what is in {tree}")
    found: Main = importlib.import_module("kubectl_ebpfnet.cli.app").main
    return found


if __name__ == "__main__":
    tree, questions, answers = sys.argv[1:]
    main = _main_of(tree)
    with open(answers, "w", encoding="utf-8") as file:
        for words in json.loads(Path(questions).read_text(encoding="utf-8")):
            file.write(json.dumps(answer(main, words)) + "\n")
