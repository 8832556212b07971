"""Collect the records of `doctor`: the API server's version and this user's rights, and the tools
and the state of every node's agent and node pod.

Node pods are deployed only with --node-access pod.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from kubectl_ebpfnet.cluster.agents import NAMESPACES
from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.collect.ask.access import Mode, NodeAccess
from kubectl_ebpfnet.collect.ask.api import RecordingApi
from kubectl_ebpfnet.collect.ask.unasked import unavailable_record
from kubectl_ebpfnet.collect.gatherer import Gatherer, Notify
from kubectl_ebpfnet.collect.scope import Scope
from kubectl_ebpfnet.collect.survey import ask_places
from kubectl_ebpfnet.errors import ApiUnreachable, ClusterError, Unauthorized
from kubectl_ebpfnet.model import doctor, json_members
from kubectl_ebpfnet.model.evidence import CLIENT, Bundle, InMemory, Record, now
from kubectl_ebpfnet.model.fact import Need
from kubectl_ebpfnet.model.node_pods import INSTALLED_NAMESPACE
from kubectl_ebpfnet.model.rights import RIGHTS, Right
from kubectl_ebpfnet.parse import kube

_WHO = "/apis/authentication.k8s.io/{}/selfsubjectreviews"
_WHO_VERSIONS = ("v1", "v1beta1")
"""Since Kubernetes 1.28 and 1.27; older API servers do not tell the user's name."""


def checkup(
    session: Session,
    access: NodeAccess,
    *,
    timeout: float | None = None,
    warn: Notify = lambda _: None,
    progress: Notify = lambda _: None,
) -> Bundle:
    """Collect every record that `doctor` reports from.

    Args:
        session: the connection.
        access: how nodes may be asked; only mode `pod` deploys node pods.
        timeout: seconds for the whole run; late answers are left out. None for no limit.
        warn: takes lines that the user must read.
        progress: takes a line about the current step.

    Raises:
        ApiUnreachable, Unauthorized: the API server does not answer this user. Any other refusal is
            a record.
    """
    with Gatherer(session, access, timeout=timeout, warn=warn, progress=progress) as gatherer:
        api = gatherer.api
        gatherer.needed(gatherer.start(partial(_version, api)))
        rights = [
            (
                right,
                gatherer.start(partial(api.allowed, right.verb, right.resource, "", right.name)),
            )
            for right in RIGHTS
        ]
        gatherer.look_for_answerers(Mode.AGENT)  # in any mode: the report names Cilium's version
        nodes = gatherer.start(api.nodes)
        gatherer.read([partial(_who, api), partial(api.cilium, "ciliumnodes")])
        agents = gatherer.find_answerers()
        kept = gatherer.answerers.kept_nodes
        listed = [kube.node(each).name for each in gatherer.tried(nodes, 0.5)[0] or []]
        every, scope = [*listed, *agents, *kept], Scope(Need.DOCTOR)
        if access.mode in (Mode.AUTO, Mode.AGENT):
            ask_places(gatherer, scope, every, mode=Mode.AGENT)
        ask_places(gatherer, scope, every if access.mode is Mode.POD else kept, mode=Mode.POD)
        where = sorted({agent.namespace for agent in agents.values()})
        denied = [right for right, answer in rights if gatherer.tried(answer)[0] is False]
        gatherer.read(_narrower(api, denied, [session.namespace, *(where or NAMESPACES[:1])]))
        return gatherer.bundle(_connection(session, access))


def _narrower(
    api: RecordingApi, denied: Iterable[Right], namespaces: Iterable[str]
) -> list[Callable[[], object]]:
    """Return calls that ask for denied rights in some namespaces."""
    return [
        partial(api.allowed, right.verb, right.resource, namespace, right.name)
        for right in denied
        if right.namespaced
        for namespace in dict.fromkeys(
            (*namespaces, *([INSTALLED_NAMESPACE] if right.resource == "pods/exec" else ()))
        )
    ]


def _who(api: RecordingApi) -> None:
    """Record the user as the API server knows them; a server without the API is no failure."""
    for version in _WHO_VERSIONS:
        body = {
            "apiVersion": f"authentication.k8s.io/{version}",
            "kind": "SelfSubjectReview",
        }
        started = now()
        try:
            review = api.create(_WHO.format(version), body)
        except ClusterError:
            continue
        who = json_members.dig(review, "status", "userInfo")
        if isinstance(who, dict):
            named = {key: who[key] for key in ("username", "groups") if key in who}
            api.keep_value(doctor.WHO, named, started)
            return


def _version(api: RecordingApi) -> None:
    """Record the server's version. Raises when the server does not answer this user at all."""
    started = now()
    try:
        api.keep_value(doctor.SERVER_VERSION, api.get("/version"), started)
    except (ApiUnreachable, Unauthorized):
        raise
    except ClusterError as error:
        api.keep_failure(doctor.SERVER_VERSION, error)


def _connection(session: Session, access: NodeAccess) -> Record:
    members = {
        "context": session.context,
        "server": session.server,
        "namespace": session.namespace,
        "node_access": access.mode.value,
    }
    stdout = InMemory(json.dumps(members, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    return replace(
        unavailable_record(CLIENT, doctor.CONNECTION, ""), exit_code=0, stdout=stdout, started=now()
    )
