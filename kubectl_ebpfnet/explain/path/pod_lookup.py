"""What a DNS name is by the pod's own look-up: getent, which is its C library, or nslookup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kubectl_ebpfnet.explain.path.resolver import NameAnswer, NameSources
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.evidence import Record
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.resolver import LookupOutcome, ResolverConfig
from kubectl_ebpfnet.parse import lookup

_NO_PROGRAM = 127


def by_getent(name: str, sources: NameSources, server: Address | None) -> NameAnswer:
    """Return what getent in the pod said of a name, or why nothing is known of it.

    Args:
        name: as the user wrote it.
        sources: records of the pod.
        server: the first nameserver that the pod asks, None when not known.
    """
    wanted = q.NAME_LOOKUP.about(name).forms
    record = next((each for each in sources.inside if each.argv in wanted), None)
    if record is None:
        why = next((each.why_not() for each in sources.inside if not each.ran), "")
        why = f": {why}" if why else ""
        text = f"nothing says what {name} resolves to{why}"
        return NameAnswer(LookupOutcome.NOT_ASKED, text=text, nameserver=server, by_pod=False)
    found = lookup.addresses(record.beginning)
    proof = cite.whole(record)
    if found:
        text = f"{name} is {found[0]}, asked in {record.place}"
        return NameAnswer(
            LookupOutcome.FOUND, found, None, text, server, ordered=True, evidence=proof
        )
    if record.exit_code == _NO_PROGRAM or not record.ran:
        if _late(record, sources):
            return NameAnswer(
                LookupOutcome.SILENT,
                text=f"{name} was not resolved in {record.place}: {record.why_not()}",
                nameserver=server,
                evidence=proof,
            )
        why = f"{record.place} could not be asked ({record.why_not()})"
        text = f"nothing says what {name} resolves to: {why}"
        return NameAnswer(
            LookupOutcome.NOT_ASKED, text=text, nameserver=server, by_pod=False, evidence=proof
        )
    text = f"getent in {record.place} found no address of {name}; it does not say whether a "
    text += "nameserver answered"
    return NameAnswer(LookupOutcome.NOTHING, text=text, nameserver=server, evidence=proof)


def _late(record: Record, sources: NameSources) -> bool:
    """Tell whether a look-up was started and was still waiting when its time was over."""
    return " within " in record.error and any(each.ran for each in sources.inside)


def by_nslookup(
    name: str, sources: NameSources, config: ResolverConfig, server: Address | None
) -> NameAnswer | None:
    """Return what nslookup said of the name's candidates; None where it did not run."""
    by_name: dict[str, Record] = {}
    for record in sources.inside:
        if record.argv[:1] == ("nslookup",) and len(record.argv) == 2:
            by_name.setdefault(record.argv[1].rstrip("."), record)
    said: list[tuple[LookupOutcome, str, str, Record]] = []
    for candidate in dict.fromkeys((*config.candidates(name), name.rstrip("."))):
        asked = by_name.get(candidate)
        if asked is None or asked.exit_code == _NO_PROGRAM:
            continue
        if not asked.ran and not _late(asked, sources):
            continue
        output = asked.beginning
        found = lookup.nslookup(output)
        if found:
            text = f"{name} is {found[0]}: nslookup of {candidate} in {asked.place}"
            proof = cite.whole(asked)
            return NameAnswer(LookupOutcome.FOUND, found, None, text, server, evidence=proof)
        outcome, word = lookup.outcome(output + b"\n" + asked.stderr)
        if not asked.ran:
            outcome = LookupOutcome.SILENT
        said.append((outcome, word, candidate, asked))
    return _of_failures(name, said, server) if said else None


def _of_failures(
    name: str,
    said: Sequence[tuple[LookupOutcome, str, str, Record]],
    server: Address | None,
) -> NameAnswer:
    """Return what several look-ups without an address come to: the one that stops the search."""
    order = (LookupOutcome.SILENT, LookupOutcome.FAILED, LookupOutcome.NO_ADDRESS)
    outcome = next((each for each in order if any(s[0] is each for s in said)), said[0][0])
    word, tried, record = next((w, c, r) for kind, w, c, r in said if kind is outcome)
    who = f"nameserver {server}" if server else "the nameserver"
    match outcome:
        case LookupOutcome.SILENT:
            text = f"{name} was not resolved: {who} of {record.place} did not answer"
        case LookupOutcome.FAILED:
            text = f"{name} was not resolved: {who} of {record.place} answers {word} for {tried}"
        case LookupOutcome.NO_ADDRESS:
            text = f"{tried} exists and has no address: {who} of {record.place} says so"
        case LookupOutcome.NO_SUCH_NAME:
            names = ", ".join(dict.fromkeys(candidate for _, _, candidate, _ in said))
            text = f"{name} does not exist: {who} of {record.place} says NXDOMAIN for {names}"
        case _:
            text = f"nslookup in {record.place} found no address of {name}, and does not say why"
    proof = tuple(each for *_, one in said for each in cite.whole(one))
    return NameAnswer(outcome, text=text, nameserver=server, evidence=proof)


def unusable(name: str, asked: NameAnswer, by_server: NameAnswer) -> NameAnswer:
    """Return the answer where the nameserver has addresses that the C library does not give."""
    found = ", ".join(map(str, by_server.addresses))
    text = f"getent in the pod gives no address of {name}, though its nameserver has {found}"
    proof = (*asked.evidence, *by_server.evidence)
    return replace(asked, outcome=LookupOutcome.NO_ADDRESS, text=text, evidence=proof)
