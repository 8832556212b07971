"""Turn failed connections and refused requests into the errors of kubectl_ebpfnet.errors.

The verb, resource and namespace of a refusal come from the request itself, by the rules of the API
server's RequestInfo (k8s.io/apiserver/pkg/endpoints/request/requestinfo.go), so they are right
even when a proxy answered with a page of its own.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator

from kubectl_ebpfnet.errors import (
    ApiError,
    ApiUnreachable,
    ClusterError,
    Forbidden,
    NotFound,
    ParseError,
    Unauthorized,
    tier_of,
)
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.untrusted import json_value

_PATH = re.compile(
    r"/(?:api/v1|apis/(?P<group>[^/]+)/[^/]+)"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/))?"
    r"/(?P<resource>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<subresource>[^/]+))?)?$"
)
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_MESSAGE_CHARS = 500
# `User "u" cannot get resource "pods/exec" in API group "" …`
# Messages of admission, after RBAC has agreed: `pods "node-1" is forbidden: violates PodSecurity …`
_POLICY = re.compile(r"is forbidden: (?!User )|^admission webhook|denied the request")
_CANNOT = re.compile(r'cannot (?P<verb>\w+) resource "pods/exec"')

_ADMISSION_HINT = (
    "RBAC allows it. Without node pods, --node-access agent asks Cilium's agents; node pods that"
    " somebody installs are used (`kubectl ebpfnet node-pods --print-manifest`)"
)
_ADMISSION = (
    ("violates PodSecurity", "Pod Security refuses it"),
    ("unable to validate against any pod security policy", "a PodSecurityPolicy refuses it"),
    ("GKE Warden", "GKE's Warden (Autopilot) refuses it"),
    ("exceeded quota", "a ResourceQuota refuses it"),
    ("failed quota", "a ResourceQuota refuses it"),
    ("ValidatingAdmissionPolicy", "a ValidatingAdmissionPolicy refuses it"),
    ("admission webhook", "a policy's webhook refuses it"),
    (" usage per ", "a LimitRange refuses it"),
    (" is being terminated", "its namespace is being deleted"),
)
"""Words of an admission plugin of Kubernetes, or of a known webhook, and who says them:
k8s.io/pod-security-admission, plugin/pkg/admission/{podsecuritypolicy,resourcequota,limitranger},
k8s.io/apiserver/pkg/admission/plugin."""

EXEC_HINT = (
    'exec needs both verbs "get" and "create" on "pods/exec": a websocket begins as a GET, which'
    ' every API server checks as "get", and from Kubernetes 1.35 on as "create" too'
)
"""kubernetes/kubernetes#78741 (get) and #134577 (create as well, 1.35)."""


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """A request in RBAC's terms.

    Attributes:
        verb: get, list, create, …
        resource: `pods`, `pods/exec`, `ciliumendpoints.cilium.io`; "" for non-resource paths.
        namespace: namespace of the request, "" for none.
        name: name of the object, "" for a collection.
    """

    verb: str
    resource: str
    namespace: str = ""
    name: str = ""

    @property
    def kind(self) -> str:
        """The resource as a lower-case singular: `pod`, `networkpolicy`."""
        plural = self.resource.partition("/")[0].partition(".")[0]
        if plural.endswith("ies"):
            return plural.removesuffix("ies") + "y"
        return plural.removesuffix("s") or "page"


def api_request(method: str, path: str) -> ApiRequest:
    """Return verb, resource, namespace and name of a request; `path` has no query."""
    match = _PATH.search(path)
    if match is None:
        return ApiRequest(_VERBS.get(method, "get"), "")
    group, namespace, resource, name, sub = match.group(
        "group", "namespace", "resource", "name", "subresource"
    )
    verb = _VERBS.get(method, "get" if name else "list")
    full = resource + (f"/{sub}" if sub else "") + (f".{group}" if group else "")
    return ApiRequest(verb, full, namespace or "", name or "")


def refusal(status: int, body: bytes, method: str, path: str, server: str) -> ClusterError:
    """Return the error for an HTTP answer with a failure status.

    Args:
        status: HTTP status code.
        body: body of the answer: a Status object, or anything else.
        method: HTTP method of the request.
        path: path of the request, without a query.
        server: URL of the API server, for messages.
    """
    request = api_request(method, path)
    message = _message(body)
    if status == 401:
        return Unauthorized(
            f"{server} does not accept these credentials (401)",
            hint="log in again, or check --context, --user and --token",
        )
    if status == 403 and request.verb == "create" and _POLICY.search(message):
        of_node_pods = request.resource in ("pods", "namespaces")
        hint = _ADMISSION_HINT if of_node_pods else "RBAC allows it"
        return ApiError(status, f"{_refused_by(message)}: {message}", hint=hint)
    if status == 403:
        return _forbidden(request, message)
    if status == 404:
        if not request.name:
            return NotFound(
                "resource", request.resource or path, hint="this API server does not serve it"
            )
        return NotFound(request.kind, request.name, request.namespace)
    return ApiError(status, f"{server} answered {status} to {method} {path}: {message}")


def _refused_by(message: str) -> str:
    """Return who refused a request after RBAC had allowed it, by the words of the refusal."""
    return next((who for words, who in _ADMISSION if words in message), "admission refuses it")


def unreachable(server: str, error: BaseException, waited: float | None = None) -> ApiUnreachable:
    """Return the error for a failed connection, with the reason in words.

    Args:
        server: URL of the server.
        error: exception of a library; the reason is found in its chain of causes.
        waited: seconds of the time-out, None when unknown.
    """
    reason, hint = "the connection broke", "try again"
    for cause in _chain(error):
        found = _reason(cause, waited)
        if found:
            reason, hint = found
            break
    else:
        text = " ".join(str(error).split())
        reason = f"{reason}: {text[:_MESSAGE_CHARS]}" if text else reason
    return ApiUnreachable(f"cannot reach {server}: {reason}", hint=hint)


def root_cause(error: BaseException) -> BaseException:
    """Return the first exception of a chain of causes: the socket's, below those of libraries."""
    return next(_chain(error))


def _reason(cause: BaseException, waited: float | None) -> tuple[str, str] | None:
    if isinstance(cause, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not trusted: {cause.verify_message}",
            "check certificate-authority and tls-server-name of the cluster in the kubeconfig",
        )
    if isinstance(cause, ssl.SSLError):
        text = (cause.reason or str(cause)).replace("_", " ").lower()
        return f"TLS failed: {text}", "is the server's URL right, https:// included?"
    if isinstance(cause, socket.gaierror):
        return f"its name does not resolve ({cause.strerror})", "is a VPN or a DNS server missing?"
    if isinstance(cause, ConnectionRefusedError):
        return "connection refused", "is the API server up, and is this its port?"
    if isinstance(cause, TimeoutError):
        limit = f" within {waited:g} s" if waited else " in time"
        return f"no answer{limit}", "is the network up? --request-timeout allows more"
    if isinstance(cause, ConnectionError):
        return f"the connection broke ({cause.strerror or cause})", "try again"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror.lower(), "is the network up?"
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    # Deepest first: urllib3 and the kubernetes library wrap the exception of the socket.
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        error = error.__cause__ or error.__context__
    return reversed(seen)


def _forbidden(request: ApiRequest, message: str) -> Forbidden:
    verb = request.verb
    if request.resource == "pods/exec":
        match = _CANNOT.search(message)
        verb = match["verb"] if match else verb
    error = Forbidden(verb, request.resource or "this", request.namespace)
    if request.resource == "pods/exec":
        error.hint = f"{EXEC_HINT} ({tier_of(verb, request.resource, request.namespace)})"
    return error


def _message(body: bytes) -> str:
    try:
        status = json_value(body, "a refusal")
    except ParseError:
        status = None
    if isinstance(status, dict) and isinstance(status.get("message"), str):
        text = status["message"]
    else:
        text = body[: 4 * _MESSAGE_CHARS].decode("utf-8", "replace")
    return " ".join(text.split())[:_MESSAGE_CHARS] or "no reason was given"
