"""Where a command's facts come from: a live cluster, or a capture with --from."""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from kubectl_ebpfnet.cli.flags import GlobalFlags
from kubectl_ebpfnet.cli.terminal import Progress
from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.path import PathRequest

if TYPE_CHECKING:
    from kubectl_ebpfnet.collect.lists import LookedAt, TopicOf
    from kubectl_ebpfnet.collect.survey import SurveyTarget

Question = Callable[[str], PathRequest]
"""Default namespace → the question."""


def gather(
    question: Question,
    capture: str,
    given: GlobalFlags,
    timeout: float | None,
    progress: Progress,
    later: Sequence[str] = (),
) -> tuple[PathRequest, Bundle]:
    """What is asked, as the facts can answer it, and the facts.

    Args:
        question: asked with the namespace that holds when -n does not say.
        capture: of --from; `demo` is the one that ships with the program; "" asks the cluster.
        given: kubectl's flags, and how nodes may be asked.
        timeout: seconds after which what has not answered is done without; None for no limit.
        later: modules that are needed when the cluster has answered.

    Raises:
        EbpfnetError: the capture cannot be read, or the cluster not be asked.
    """
    if capture:
        return question("default"), opened(capture)
    options, access = given.connection(), given.nodes.access()
    from kubectl_ebpfnet.cluster.client.session import Session

    progress.show("connecting")
    _import_meanwhile(later)
    with Session.open(options) as session:
        from kubectl_ebpfnet.collect.path import collect_path

        request = question(session.namespace)
        return collect_path(
            session,
            request,
            access=access,
            timeout=timeout,
            say=progress.warn,
            progress=progress.show,
        )


@contextlib.contextmanager
def looker(
    capture: str,
    given: GlobalFlags,
    timeout: float | None,
    progress: Progress,
    later: Sequence[str] = (),
) -> Iterator[Callable[[SurveyTarget, TopicOf], LookedAt]]:
    """Gives a function that looks at one pod or node: live, or in a capture.

    Args:
        capture, given, timeout, talk, later: as for `gather`.

    Raises:
        EbpfnetError: the capture cannot be read, or the cluster not be asked; from the function:
            the pod or node is not there.
    """
    from kubectl_ebpfnet.collect.lists import Looker, in_bundle

    if capture:
        bundle = opened(capture)
        yield lambda wanted, _: in_bundle(bundle, wanted, given.namespace or "default")
        return
    options, access = given.connection(), given.nodes.access()
    from kubectl_ebpfnet.cluster.client.session import Session

    progress.show("connecting")
    _import_meanwhile(later)
    with (
        Session.open(options) as session,
        Looker(session, access, timeout, progress.warn, progress.show) as live,
    ):
        yield live.look


def _import_meanwhile(modules: Sequence[str]) -> None:
    """Import in a thread, while the main one mostly waits for the network."""

    def run() -> None:
        # Whoever needs the module imports it again, and gets the error there.
        with contextlib.suppress(Exception):
            for module in modules:
                importlib.import_module(module)

    threading.Thread(target=run, name="imports", daemon=True).start()


def opened(capture: str) -> Bundle:
    """The bundle of --from. A file that is really called `demo` is `./demo`."""
    from kubectl_ebpfnet.capture.open import demo_bundle, open_bundle

    return demo_bundle() if capture == "demo" else open_bundle(capture)
