"""The fields of Kubernetes objects that a record may keep: names, addresses, policies; no secret.

Field meanings: Kubernetes API reference. People put secrets into a pod's environment, arguments,
commands, volumes and annotations, so pods and nodes are reduced to a list of fields that a packet's
path depends on; every other field is dropped, also those of later API versions. Services, slices,
policies and Cilium's objects hold no secrets by design and are kept without their bookkeeping.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Json = dict[str, Any]
_Shape = dict[str, Any]


def _kept(whole: str = "", **parts: _Shape) -> _Shape:
    """Return a shape: members to keep whole, and parts to keep of others, or of their items."""
    return {**dict.fromkeys(whole.split(), True), **parts}


_REFERENCE = _kept("kind name controller")
_METADATA = _kept(
    "name namespace uid labels deletionTimestamp creationTimestamp", ownerReferences=_REFERENCE
)
_CONDITION = _kept("type status reason message")
_ENDED = _kept("reason exitCode")
_CONTAINER_STATUS = _kept(
    "name ready restartCount",
    state=_kept(waiting=_kept("reason"), terminated=_ENDED, running=_kept("startedAt")),
    lastState=_kept(terminated=_ENDED),
)
_PORT = _kept("name containerPort hostPort hostIP protocol")
_POD = _kept(
    spec=_kept(
        "nodeName hostNetwork serviceAccountName runtimeClassName dnsPolicy dnsConfig hostAliases",
        containers=_kept("name", ports=_PORT),
    ),
    status=_kept(
        "phase reason podIP podIPs hostIP hostIPs",
        conditions=_CONDITION,
        containerStatuses=_CONTAINER_STATUS,
        initContainerStatuses=_CONTAINER_STATUS,
    ),
)
_NODE_INFO = _kept(
    "kernelVersion kubeletVersion kubeProxyVersion osImage containerRuntimeVersion architecture"
)
_NODE = _kept(
    spec=_kept("podCIDR podCIDRs unschedulable taints"),
    status=_kept("addresses", conditions=_CONDITION, nodeInfo=_NODE_INFO),
)
_ANNOTATION = re.compile(r"(^|[./])cilium\.io/|^kubectl\.kubernetes\.io/default-container$")
_SECRET_KEY = re.compile(r"secret|passw|token|credential|private|api-?key|kvstore-opt|auth-key")
_SECRET_VALUE = re.compile(r"://[^/\s@]*:[^/\s@]*@|-----BEGIN")
_KEPT_WHOLE = re.compile(
    r"Service|ServiceCIDR|Lease|EndpointSlice|Endpoints|Namespace|NetworkPolicy|"
    r"Cilium(Node|Endpoint|EndpointSlice|Identity|NetworkPolicy|ClusterwideNetworkPolicy|"
    r"EgressGatewayPolicy|LocalRedirectPolicy|CIDRGroup|"
    r"BGPAdvertisement)"
)


def strip(value: Json) -> Json:
    """Return an object or a list of the API server without the fields that must not be kept.

    The argument is not changed.
    """
    kind = _text(value.get("kind"))
    head: Json = {key: value[key] for key in ("apiVersion", "kind") if key in value}
    items = value.get("items")
    if isinstance(items, list):
        # In a typed list (`PodList`) the items have no kind.
        inherited = kind.removesuffix("List")
        return {
            **head,
            "items": [
                _strip_object(item, _text(item.get("kind")) or inherited)
                for item in items
                if isinstance(item, dict)
            ],
        }
    return _strip_object(value, kind)


def _strip_object(value: Json, kind: str) -> Json:
    head: Json = {key: value[key] for key in ("apiVersion", "kind") if key in value}
    metadata = value.get("metadata")
    if isinstance(metadata, dict):
        head["metadata"] = _metadata(metadata)
    select = _FIELDS_OF.get(kind)
    if select is not None:
        return {**head, **select(value)}
    if _KEPT_WHOLE.fullmatch(kind):
        rest = {key: value[key] for key in value if key not in ("apiVersion", "kind", "metadata")}
        return {**head, **_without_secrets(rest)}
    return head


def _metadata(metadata: Json) -> Json:
    found: Json = _select(metadata, _METADATA)
    annotations = metadata.get("annotations")
    if isinstance(annotations, dict):
        kept_annotations = {key: annotations[key] for key in annotations if _ANNOTATION.search(key)}
        if kept_annotations:
            found["annotations"] = kept_annotations
    return found


def _config_map(value: Json) -> Json:
    metadata, data = value.get("metadata"), value.get("data")
    if not isinstance(metadata, dict) or metadata.get("name") != "cilium-config":
        return {}
    if not isinstance(data, dict):
        return {}
    return {
        "data": {
            key: text
            for key, text in data.items()
            if not _SECRET_KEY.search(key.lower()) and not _SECRET_VALUE.search(_text(text))
        }
    }


_FIELDS_OF: dict[str, Callable[[Json], Json]] = {
    "Pod": lambda value: _select(value, _POD),
    "Node": lambda value: _select(value, _NODE),
    "ConfigMap": _config_map,
}


def _select(value: Any, shape: _Shape) -> Any:
    if isinstance(value, list):
        return [_select(item, shape) for item in value if isinstance(item, dict)]
    if not isinstance(value, dict):
        return {}
    return {
        key: value[key] if wanted is True else _select(value[key], wanted)
        for key, wanted in shape.items()
        if value.get(key) is not None
    }


def _without_secrets(value: Any) -> Any:
    # L7 rules of a policy may match an Authorization header's value; a description is free text.
    if isinstance(value, dict):
        return {
            key: _without_secrets(item)
            for key, item in value.items()
            if key not in ("headers", "headerMatches", "description")
        }
    if isinstance(value, list):
        return [_without_secrets(item) for item in value]
    return value


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
