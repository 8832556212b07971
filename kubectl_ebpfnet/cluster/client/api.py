"""Read objects of the API server as plain dicts, as in its JSON, without models.

Paths and paging: Kubernetes docs, "Kubernetes API concepts" (limit and continue, 410 Gone).
Listing 5,000 pods this way takes 0.3 s where the library's models take 8 s (ecosystem.md 2.5).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from kubectl_ebpfnet.cluster.client.answer import without_managed_fields
from kubectl_ebpfnet.cluster.client.failures import refusal
from kubectl_ebpfnet.cluster.client.session import Query, Response, Session
from kubectl_ebpfnet.errors import ApiError, NotFound, ParseError
from kubectl_ebpfnet.model import json_members
from kubectl_ebpfnet.model.untrusted import json_value

Object = dict[str, Any]
"""One API object, or any other JSON object of the API server."""
Objects = list[Object]
T = TypeVar("T")
Made = list[T]
"""What is made of a list's objects."""

PAGE = 500
LIST_LIMIT = 2 << 30
"""Bytes of JSON of all pages of a list. Kubernetes supports 150,000 pods: 1.2 GB at 8 KiB each."""
_PAGE_COST = 16 << 10  # bytes that an empty page counts for: a list has to end
_FIRST_PAGE = 25
"""Objects of the page that tells whether a list is of few: a Node with its images takes 0.4 ms."""
_RESTARTS = 3

CORE = "/api/v1"
APPS = "/apis/apps/v1"
BATCH = "/apis/batch/v1"
CILIUM = "/apis/cilium.io/v2"
_SLICES = ("/apis/discovery.k8s.io/v1", "/apis/discovery.k8s.io/v1beta1")


class MoreThanWanted(Exception):
    """A list has more objects than its caller wants to read whole."""


class Api:
    """Requests to the API server. Threads may share it, as they share its session.

    Besides the errors that a method names, each raises Unauthorized, Forbidden, ApiUnreachable, or
    ApiError for a failure status or an answer that is not JSON.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.reading: dict[str, tuple[int, int | None]] = {}
        """Lists of several pages that are read now: path → objects so far, and how many there are
        where the server says so. Threads write it, others may read it."""
        self._slices = ""  # the version of EndpointSlices that this server serves, once known

    # --- any object -----------------------------------------------------------------------------

    def get(self, path: str, query: Query = ()) -> Object:
        """GET an object. Raises NotFound."""
        return self._decode(self._request("GET", path, query), path)

    def create(self, path: str, body: Mapping[str, Any], query: Query = ()) -> Object:
        """POST an object to its collection; return the created object."""
        return self._decode(self._request("POST", path, query, body), path)

    def delete(self, path: str, query: Query = ()) -> None:
        """DELETE an object; `query` holds DeleteOptions, e.g. gracePeriodSeconds.

        The object may still exist for a while. Raises NotFound.
        """
        self._request("DELETE", path, query)

    def list(
        self,
        path: str,
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = PAGE,
        first_page: bool = False,
    ) -> Objects:
        """Return all items of a collection, each with its apiVersion and kind.

        Args: as list_of.

        Raises:
            NotFound: the server does not serve this resource.
        """
        return self.list_of(
            path, lambda page: page, label_selector=label_selector, field_selector=field_selector,
            limit=limit, first_page=first_page,
        )  # fmt: skip

    def list_of(
        self,
        path: str,
        take: Callable[[Objects], Made[T]],
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = PAGE,
        first_page: bool = False,
        most: int | None = None,
    ) -> Made[T]:
        """Return what `take` makes of each page of a collection, whose objects have their
        apiVersion and kind. No more than a page of objects is held: those of 30,000 pods are 1 GB.

        A list whose pages expire half-way (410 Gone) is read again, the last time without pages.

        Args:
            path: path of the collection.
            take: is called with each page's objects; again from the first one after a 410.
            label_selector: `labelSelector` parameter, "" for none.
            field_selector: `fieldSelector` parameter, "" for none.
            limit: items per page.
            first_page: leave the further pages out.
            most: how many objects are read, None for all; the first page, a short one, tells.

        Raises:
            NotFound: the server does not serve this resource.
            MoreThanWanted: there are more than `most`, or the server does not tell how many.
        """
        query = {"labelSelector": label_selector, "fieldSelector": field_selector}
        query = {key: value for key, value in query.items() if value}
        for restart in range(_RESTARTS + 1):
            page_size = limit if restart < _RESTARTS else 0
            try:
                return self._pages(path, take, query, page_size, first_page=first_page, most=most)
            except ApiError as e:
                if e.status != 410 or not page_size:
                    raise
            finally:
                self.reading.pop(path, None)
        raise AssertionError("the last round returns or raises")

    def _pages(
        self,
        path: str,
        take: Callable[[Objects], Made[T]],
        query: dict[str, str],
        limit: int,
        *,
        first_page: bool = False,
        most: int | None = None,
    ) -> Made[T]:
        found: Made[T] = []
        page = dict(query)
        if limit:
            page["limit"] = str(limit if most is None else min(limit, _FIRST_PAGE))
        size = count = 0
        while True:
            response = self._request("GET", path, page)
            size += len(response.body) + _PAGE_COST
            if size > LIST_LIMIT:
                raise self._not_kubernetes(path, "an endless list", response.status)
            document = self._decode(response, path)
            if "items" not in document:
                raise self._not_kubernetes(path, "no list", response.status)
            kind = str(document.get("kind", "")).removesuffix("List")
            items = document.get("items") or []
            token = json_members.text(document, "metadata", "continue")
            count += len(items)
            left = json_members.number(document, "metadata", "remainingItemCount")
            if token and most is not None:
                if left is None or count + left > most:
                    raise MoreThanWanted
                most, page["limit"] = None, str(limit)
            # Items of a list lack apiVersion and kind; kubectl fills them in as well.
            own = {"apiVersion": document.get("apiVersion", ""), "kind": kind}
            found += take([{**own, **item} for item in items])
            if not token or first_page:
                return found
            page["continue"] = token
            self.reading[path] = count, None if left is None else count + left
            del response, document, items  # before the next one is there

    def _request(
        self, method: str, path: str, query: Query, body: Mapping[str, Any] | None = None
    ) -> Response:
        response = self.session.request(method, path, query, body)
        if not 200 <= response.status < 300:
            raise refusal(response.status, response.body, method, path, self.session.server)
        return response

    def _decode(self, response: Response, path: str) -> Object:
        try:
            document = json_value(without_managed_fields(response.body), path)
        except ParseError as e:
            raise self._not_kubernetes(path, f"invalid JSON ({e.problem})", response.status) from e
        if not isinstance(document, dict) or not isinstance(document.get("items") or [], list):
            raise self._not_kubernetes(path, "JSON of another kind", response.status)
        if any(not isinstance(item, dict) for item in document.get("items") or []):
            raise self._not_kubernetes(path, "items that are not objects", response.status)
        return document

    def _not_kubernetes(self, path: str, found: str, status: int) -> ApiError:
        return ApiError(
            status,
            f"{self.session.server}{path} answered with {found}",
            hint="is this a Kubernetes API server, without a login page in front of it?",
        )

    # --- objects by name ------------------------------------------------------------------------

    def pods(
        self,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = PAGE,
        first_page: bool = False,
    ) -> Objects:
        """Return the pods of a namespace.

        Args:
            namespace: the namespace, "" for all.
            label_selector: `labelSelector` parameter, "" for none.
            field_selector: `fieldSelector` parameter, "" for none.
            limit: objects a page.
            first_page: leave the further pages out.
        """
        return self.list(
            _path_of(CORE, namespace, "pods"),
            label_selector=label_selector,
            field_selector=field_selector,
            limit=limit,
            first_page=first_page,
        )

    def pod(self, namespace: str, name: str) -> Object:
        """Return a pod. Raises NotFound."""
        return self.get(_path_of(CORE, namespace, "pods", name))

    def names(self, resource: str, namespace: str = "") -> Sequence[str]:
        """Return the names of a resource's objects, e.g. `deployments`; namespace "" is all."""
        from kubectl_ebpfnet.cluster.client.tables import listed_names

        apps = ("deployments", "statefulsets", "daemonsets", "replicasets")
        base = APPS if resource in apps else BATCH if resource == "jobs" else CORE
        return listed_names(self.session, _path_of(base, namespace, resource))

    def nodes(self) -> Objects:
        """Return all nodes."""
        return self.list(_path_of(CORE, "", "nodes"))

    def node(self, name: str) -> Object:
        """Return a node. Raises NotFound."""
        return self.get(_path_of(CORE, "", "nodes", name))

    def services(self, namespace: str = "") -> Objects:
        """Return the Services of a namespace, or of all namespaces for ""."""
        return self.list(_path_of(CORE, namespace, "services"))

    def service(self, namespace: str, name: str) -> Object:
        """Return a Service. Raises NotFound."""
        return self.get(_path_of(CORE, namespace, "services", name))

    def namespace(self, name: str) -> Object:
        """Return a Namespace. Raises NotFound."""
        return self.get(_path_of(CORE, "", "namespaces", name))

    def config_map(self, namespace: str, name: str) -> Object:
        """Return a ConfigMap. Raises NotFound."""
        return self.get(_path_of(CORE, namespace, "configmaps", name))

    def endpoint_slices(self, namespace: str = "", service: str = "") -> Objects:
        """Return the EndpointSlices of a namespace ("" for all), of one Service when named.

        Servers before 1.21 serve only v1beta1, from 1.25 on only v1; `apiVersion` of the items
        tells the version. In v1beta1 an endpoint's node is in `topology["kubernetes.io/hostname"]`
        where `nodeName` is missing.

        Raises:
            NotFound: neither version is served.
        """
        selector = f"kubernetes.io/service-name={service}" if service else ""
        versions = (self._slices,) if self._slices else _SLICES
        for version in versions:
            path = _path_of(version, namespace, "endpointslices")
            try:
                found = self.list(path, label_selector=selector)
            except NotFound:
                if version == versions[-1]:
                    raise
                continue
            self._slices = version
            return found
        raise AssertionError("the last version returns or raises")

    def cilium(self, resource: str, namespace: str = "") -> Objects | None:
        """Return Cilium's objects, e.g. `ciliumendpoints`; None when the server lacks the resource:
        Cilium is not installed, or too old or too new for it."""
        try:
            return self.list(_path_of(CILIUM, namespace, resource))
        except NotFound:
            return None

    def cidr_groups(self) -> Objects | None:
        """Return CiliumCIDRGroups, of v2 since Cilium 1.18, of v2alpha1 before; None without
        either."""
        return self._of_either("ciliumcidrgroups")

    def bgp_advertisements(self) -> Objects | None:
        """Return CiliumBGPAdvertisements, as `cidr_groups`."""
        return self._of_either("ciliumbgpadvertisements")

    def _of_either(self, resource: str) -> Objects | None:
        for version in (CILIUM, f"{CILIUM}alpha1"):
            try:
                return self.list(_path_of(version, "", resource))
            except NotFound:
                continue
        return None

    def allowed(self, verb: str, resource: str, namespace: str = "", name: str = "") -> bool:
        """Ask the server whether this user may do something (SelfSubjectAccessReview).

        Args:
            verb: RBAC verb, e.g. `list`.
            resource: `pods`, `pods/exec`, `ciliumendpoints.cilium.io`.
            namespace: the namespace, "" for the whole cluster.
            name: name of one object, "" for all.
        """
        main, _, group = resource.partition(".")
        main, _, subresource = main.partition("/")
        attributes = {
            "verb": verb,
            "resource": main,
            "subresource": subresource,
            "group": group,
            "namespace": namespace,
            "name": name,
        }
        review = self.create(
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": {k: v for k, v in attributes.items() if v}},
            },
        )
        return json_members.flag(review, "status", "allowed") is True

    def workload(self, resource: str, namespace: str, name: str) -> Object:
        """Return a Deployment, StatefulSet, DaemonSet, ReplicaSet or Job.

        Args:
            resource: lower-case plural, e.g. `deployments`.
            namespace: namespace of the workload.
            name: name of the workload.

        Raises:
            NotFound: no such workload.
        """
        return self.get(_path_of(BATCH if resource == "jobs" else APPS, namespace, resource, name))


def _path_of(base: str, namespace: str, resource: str, name: str = "") -> str:
    """Return a path. Names are checked earlier; quoting them again is a second defence."""
    from urllib.parse import quote

    place = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
    return f"{base}{place}/{resource}" + (f"/{quote(name, safe='')}" if name else "")
