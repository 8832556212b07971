"""Ask before a command that only reads changes something: deploys node pods, loads programs."""

from __future__ import annotations

from collections.abc import Callable

from kubectl_ebpfnet.cli.terminal import Progress, confirmed

NOT_WANTED = "not wanted"


def agreement(progress: Progress, otherwise: str) -> Callable[[str], str]:
    """Return a function that asks y/N on the terminal, once a run, whatever it is asked.

    Args:
        progress: its line is cleared for the question.
        otherwise: which flags say yes where there is no terminal, as a sentence.

    Returns:
        A function that takes the question, and returns why not, "" for a yes.
    """
    answers: list[str] = []

    def ask(question: str) -> str:
        if not answers:
            progress.show("")
            answer = confirmed(question[:1].upper() + question[1:])
            why = f"there is no terminal to ask on; {otherwise}"
            answers.append(why if answer is None else "" if answer else NOT_WANTED)
        return answers[0]

    return ask
