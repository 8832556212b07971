"""What a DNS name is to a pod: by its own look-up, else by its files and the cluster's objects.

A name is what the pod's resolver says. Where nothing can run in the pod, its resolv.conf (or what
kubelet writes into one, by dnsPolicy) says which names would be asked for, in which order, and
those of the cluster's domain are Services by the DNS specification (github.com/kubernetes/dns,
docs/specification.md). Kubelet: pkg/kubelet/network/dns/dns.go.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from typing import TypeVar

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.explain.views import cite, records
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.evidence import Record
from kubectl_ebpfnet.model.fact import Fact
from kubectl_ebpfnet.model.json_members import address as address_of
from kubectl_ebpfnet.model.kube import Pod, Service, ServiceEndpoint
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.path import Evidence
from kubectl_ebpfnet.model.resolver import LookupOutcome, ResolverConfig
from kubectl_ebpfnet.parse import lookup

T = TypeVar("T")

DOMAIN = "cluster.local"
"""The cluster's domain where no resolv.conf tells it: kubelet's --cluster-domain of kubeadm."""
_UNIQUE_LOCAL = ip_network("fc00::/7")
DNS = 53
"""Port of nameservers."""
_NO_PROGRAM = 127
_NDOTS = 5  # of kubelet, for ClusterFirst


@dataclass(frozen=True, slots=True)
class NameSources:
    """What may tell what a name is.

    Attributes:
        namespace: of the pod that asks.
        pod: None where its object is not recorded.
        inside: records of the pod.
        services, endpoints: those that are recorded.
        here: records of this machine.
    """

    namespace: str
    pod: Pod | None
    inside: Sequence[Record]
    services: Sequence[Service] = ()
    endpoints: Sequence[ServiceEndpoint] = ()
    here: Sequence[Record] = ()


@dataclass(frozen=True, slots=True)
class NameAnswer:
    """What a name is.

    Attributes:
        outcome: of the look-up.
        addresses: in the order in which the pod would take them, where `ordered`.
        service: the Service that the name is, by its object alone; None for an address.
        text: one sentence: how it was found, or why it was not.
        nameserver: who was asked, or would be; None when not known.
        ordered: the pod's C library has ordered the addresses (RFC 6724).
        by_pod: the pod's own look-up says it.
        evidence: the proof.
    """

    outcome: LookupOutcome
    addresses: tuple[Address, ...] = ()
    service: Service | None = None
    text: str = ""
    nameserver: Address | None = None
    ordered: bool = False
    by_pod: bool = True
    evidence: tuple[Evidence, ...] = field(default=())


def look_up(name: str, sources: NameSources) -> NameAnswer:
    """Return what a name is to a pod."""
    config, config_record = resolver_config(sources)
    server = config.nameservers[0] if config.nameservers else None
    asked = _by_getent(name, sources, server)
    if asked.outcome is LookupOutcome.FOUND:
        return asked
    by_server = _by_nslookup(name, sources, config, server)
    if by_server is not None and by_server.outcome is not LookupOutcome.NOTHING:
        if by_server.outcome is LookupOutcome.FOUND and _ran(asked):
            return _unusable(name, asked, by_server)
        return by_server
    if _ran(asked):
        return asked
    by_files = _by_hosts(name, sources)
    by_objects = by_files or _by_objects(name, sources, config, cite.whole(config_record))
    if by_objects is None:
        by_objects = _by_this_machine(name, sources, asked)
    if by_objects is not None:
        return by_objects
    names = " and ".join(config.candidates(name))
    would = f"; the pod would ask {server} for {names}" if server else ""
    if _asks_the_nodes_resolver(sources.pod):
        would += "; its resolver is the node's, which knows no Services (dnsPolicy Default)"
    return replace(asked, text=asked.text + would)


def cluster_names(name: str, sources: NameSources) -> list[tuple[str, str]]:
    """Return (namespace, name) of the Services that a name may be, in the order of the search."""
    config, _ = resolver_config(sources)
    found = []
    for candidate in _cluster_candidates(name, config, sources):
        labels = _service_labels(candidate, _domain(config))
        if labels is not None:
            found.append((labels[-1], labels[-2]))
    return list(dict.fromkeys(found))


def preferred(answer: NameAnswer, own: Sequence[Address], version: int | None) -> Address | None:
    """Return the address that the pod connects to first, None where it has none of its family.

    Args:
        answer: of the look-up.
        own: addresses of the pod; () when not known.
        version: of IP where the user asked for one.
    """
    families = {version} if version else {each.version for each in own} or {4, 6}
    usable = [each for each in answer.addresses if each.version in families]
    if answer.ordered or not usable:
        return next(iter(usable), None)
    # RFC 6724 6, rule 5: a source with the destination's label is better; then IPv6 before IPv4.
    # A unique local source has another label than a global destination (policy table, fc00::/7).
    labels = {each in _UNIQUE_LOCAL for each in own if each.version == 6}
    six = [each for each in usable if each.version == 6]
    if six and (not own or (six[0] in _UNIQUE_LOCAL) in labels):
        return six[0]
    return next((each for each in usable if each.version == 4), usable[0])


# --- the pod's resolver ---------------------------------------------------------------------------


def resolver_config(sources: NameSources) -> tuple[ResolverConfig, Record | None]:
    """Return a pod's resolv.conf, and its record; without one, what kubelet writes."""
    for found, record in _facts(sources.inside, q.RESOLV_CONF):
        return found, record
    for record in sources.inside:
        if record.ok and record.argv in q.RESOLV_CONF.forms:
            return ResolverConfig(), record  # an empty file
    pod = sources.pod
    policy = pod.dns_policy if pod is not None else ""
    in_cluster = policy == "ClusterFirstWithHostNet" or (
        policy in ("", "ClusterFirst") and not (pod is not None and pod.host_network)
    )
    config = ResolverConfig()
    if in_cluster:
        search = (f"{sources.namespace}.svc.{DOMAIN}", f"svc.{DOMAIN}", DOMAIN)
        config = ResolverConfig(tuple(_cluster_resolvers(sources))[:1], search, _NDOTS)
    if pod is None:
        return config, None
    ndots = config.ndots if pod.dns.ndots is None else pod.dns.ndots
    servers = (*config.nameservers, *pod.dns.nameservers)
    return ResolverConfig(servers, (*config.search, *pod.dns.searches), ndots), None


def _asks_the_nodes_resolver(pod: Pod | None) -> bool:
    """Tell whether kubelet gives the pod the resolv.conf of its node."""
    return pod is not None and (
        pod.dns_policy == "Default" or (pod.dns_policy in ("", "ClusterFirst") and pod.host_network)
    )


def _facts(found: Sequence[Record], fact: Fact[T]) -> Iterator[tuple[T, Record]]:
    for record in found:
        if record.ok and record.argv in fact.forms:
            try:
                for each in records.parse(fact, record):
                    yield each, record
            except ParseError:
                continue


def _cluster_resolvers(sources: NameSources) -> Iterator[Address]:
    for service in sources.services:
        if (service.namespace, service.name) == ("kube-system", "kube-dns"):
            yield from service.cluster_addresses


def _domain(config: ResolverConfig) -> str:
    """Return the cluster's domain, which the search list has as `svc.DOMAIN`."""
    found = (each.removeprefix("svc.") for each in config.search if each.startswith("svc."))
    return next(found, DOMAIN)


def _cluster_candidates(name: str, config: ResolverConfig, sources: NameSources) -> tuple[str, ...]:
    """Return the names that the pod would ask a resolver of the cluster for, () for none."""
    candidates = tuple(each.lower() for each in config.candidates(name))
    if any(domain.startswith("svc.") for domain in config.search):
        return candidates
    if any(server in tuple(_cluster_resolvers(sources)) for server in config.nameservers):
        return candidates
    # Which nameserver the cluster's is, is not recorded: a whole name of a Service is meant for it.
    policy = sources.pod.dns_policy if sources.pod is not None else ""
    whole = name.lower().rstrip(".")
    if config.nameservers and policy not in ("Default", "None"):
        return tuple(each for each in candidates if each == whole and each.endswith(f".{DOMAIN}"))
    return ()


# --- look-ups by the pod --------------------------------------------------------------------------


def _ran(answer: NameAnswer) -> bool:
    return answer.outcome is not LookupOutcome.NOT_ASKED


def _by_getent(name: str, sources: NameSources, server: Address | None) -> NameAnswer:
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


def _by_nslookup(
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


def _unusable(name: str, asked: NameAnswer, by_server: NameAnswer) -> NameAnswer:
    """Return the answer where the nameserver has addresses that the C library does not give."""
    found = ", ".join(map(str, by_server.addresses))
    text = f"getent in the pod gives no address of {name}, though its nameserver has {found}"
    proof = (*asked.evidence, *by_server.evidence)
    return replace(asked, outcome=LookupOutcome.NO_ADDRESS, text=text, evidence=proof)


# --- without a look-up by the pod -----------------------------------------------------------------


def _by_hosts(name: str, sources: NameSources) -> NameAnswer | None:
    """Return what the pod's /etc/hosts says, or what kubelet writes into it."""
    wanted = name.rstrip(".").lower()
    found: list[Address] = []
    proof: tuple[Evidence, ...] = ()
    for entry, record in _facts(sources.inside, q.HOSTS):
        if wanted in entry.names:
            found.append(entry.address)
            proof += cite.of(record, entry.span)
    pod = sources.pod
    if not found and pod is not None:
        aliases = pod.host_aliases
        found = [each for each, names in aliases if wanted in map(str.lower, names)]
    if not found and (wanted == "localhost" or wanted.endswith(".localhost")):
        found = [ip_address("127.0.0.1"), ip_address("::1")]  # RFC 6761 6.3, and kubelet's file
    if not found:
        return None
    text = f"{name} is {found[0]} in /etc/hosts of the pod"
    return NameAnswer(
        LookupOutcome.FOUND, tuple(found), None, text, ordered=True, by_pod=False, evidence=proof
    )


def _by_objects(
    name: str, sources: NameSources, config: ResolverConfig, proof: tuple[Evidence, ...]
) -> NameAnswer | None:
    """Return the Service, endpoint or pod that a name of the cluster's domain is."""
    domain = _domain(config)
    for candidate in _cluster_candidates(name, config, sources):
        found = _of_candidate(candidate, domain, sources)
        if found is None:
            continue
        service, address, what = found
        text = f"cluster DNS calls {what} so; no look-up is recorded"
        addresses = (address,) if address is not None else ()
        return NameAnswer(
            LookupOutcome.FOUND, addresses, service, text, by_pod=False, evidence=proof
        )
    return None


def _service_labels(candidate: str, domain: str) -> list[str] | None:
    """Return [HOST,] SERVICE, NAMESPACE of a name below `svc.DOMAIN`, None for another name."""
    rest = candidate.removesuffix(f".svc.{domain}")
    labels = rest.split(".")
    return labels if rest != candidate and len(labels) in (2, 3) else None


def _of_candidate(
    candidate: str, domain: str, sources: NameSources
) -> tuple[Service | None, Address | None, str] | None:
    rest, dot, _ = candidate.removesuffix(f".pod.{domain}").partition(".")
    if candidate.endswith(f".pod.{domain}") and dot:
        dashed = rest.replace("-", ".") if rest.count("-") == 3 else rest.replace("-", ":")
        address = address_of(dashed)
        return (None, address, f"the address {address}") if address is not None else None
    labels = _service_labels(candidate, domain)
    if labels is None:
        return None
    service, namespace = labels[-2:]
    for each in sources.services:
        if len(labels) == 2 and (each.namespace, each.name) == (namespace, service):
            return each, None, f"svc {namespace}/{service}"
    for end in sources.endpoints:
        if len(labels) == 3 and (end.namespace, end.service, end.pod) == (
            namespace, service, labels[0],
        ):  # fmt: skip
            return None, end.address, f"pod {namespace}/{end.pod} of svc {service}"
    return None


def _by_this_machine(name: str, sources: NameSources, asked: NameAnswer) -> NameAnswer | None:
    """Return what this machine's resolver said, which may differ from what the pod would get."""
    for record in sources.here:
        if record.ok and record.argv[-1:] == (name,):
            found = lookup.addresses(record.beginning)
            if found:
                text = f"{name} is {found[0]} to {record.place}, which may differ in the pod"
                return NameAnswer(
                    LookupOutcome.FOUND, found, None, text, asked.nameserver, by_pod=False,
                    evidence=cite.whole(record),
                )  # fmt: skip
    return None
