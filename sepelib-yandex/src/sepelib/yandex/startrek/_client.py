"""The client: paths, headers, errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sepelib.yandex.auth import Auth
from sepelib.yandex.base import ApiClient, Response, decoded_object
from sepelib.yandex.errors import ApiResponseError, VersionConflict

from ._around import Attachments, Comments, Links, RemoteLinks
from ._bulk import Bulk
from ._issues import Issues
from ._models import User
from ._tables import Dictionaries, Queues

__all__ = ["StartrekClient"]

_EDITS = frozenset({"issues.update", "comments.update", "dictionaries.update_component"})


class StartrekClient(ApiClient):
    """A client of the tracker; threads and greenlets may share one.

    *org_id* is of an organization in Yandex 360, *cloud_org_id* of one in the Cloud; of the wrong
    kind, everything is answered by Forbidden. *api_version*: v2 or v3. The rest as in `ApiClient`.

    What the client has no method for is `request()`, with a name for the metrics and a path below
    the base URL:

        client.request("sprints.get", "GET", "/v2/sprints/{id}", at={"id": 7}).data
    """

    service = "startrek"
    default_url = "https://api.tracker.yandex.net"
    OPTIONS = {"org_id": (str, int), "cloud_org_id": (str, int), "api_version": str}
    PATHS = {
        "myself": "/{v}/myself",
        "issues.get": "/{v}/issues/{issue}",
        "issues.create": "/{v}/issues/",
        "issues.update": "/{v}/issues/{issue}",
        "issues.search": "/{v}/issues/_search",
        "issues.count": "/{v}/issues/_count",
        "issues.scroll_clear": "/{v}/system/search/scroll/_clear",
        "issues.by_unique": "/{v}/issues/_findByUnique",
        "issues.move": "/{v}/issues/{issue}/_move",
        "issues.clone": "/{v}/issues/{issue}/_clone",
        "issues.transitions": "/{v}/issues/{issue}/transitions",
        "issues.execute": "/{v}/issues/{issue}/transitions/{transition}/_execute",
        "issues.changelog": "/{v}/issues/{issue}/changelog",
        "comments.list": "/{v}/issues/{issue}/comments",
        "comments.create": "/{v}/issues/{issue}/comments",
        "comments.update": "/{v}/issues/{issue}/comments/{comment}",
        "comments.delete": "/{v}/issues/{issue}/comments/{comment}",
        "links.list": "/{v}/issues/{issue}/links",
        "links.create": "/{v}/issues/{issue}/links",
        "links.delete": "/{v}/issues/{issue}/links/{link}",
        "remote_links.list": "/{v}/issues/{issue}/remotelinks",
        "remote_links.create": "/{v}/issues/{issue}/remotelinks",
        "attachments.list": "/{v}/issues/{issue}/attachments",
        "attachments.upload": "/{v}/issues/{issue}/attachments/",
        "attachments.upload_temporary": "/{v}/attachments/",
        "attachments.open": "/{v}/issues/{issue}/attachments/{attachment}/{name}",
        "attachments.delete": "/{v}/issues/{issue}/attachments/{attachment}",
        "bulk.update": "/{v}/bulkchange/_update",
        "bulk.transition": "/{v}/bulkchange/_transition",
        "bulk.move": "/{v}/bulkchange/_move",
        "bulk.get": "/{v}/bulkchange/{change}",
        "queues.list": "/{v}/queues",
        "queues.get": "/{v}/queues/{queue}",
        "queues.versions": "/{v}/queues/{queue}/versions",
        "queues.components": "/{v}/queues/{queue}/components",
        "dictionaries.statuses": "/{v}/statuses",
        "dictionaries.priorities": "/{v}/priorities",
        "dictionaries.resolutions": "/{v}/resolutions",
        "dictionaries.issue_types": "/{v}/issuetypes",
        "dictionaries.fields": "/{v}/fields",
        "dictionaries.worklog": "/{v}/worklog",
        "dictionaries.user": "/{v}/users/{user}",
        "dictionaries.version": "/{v}/versions/{version}",
        "dictionaries.archive_version": "/{v}/versions/{version}/_archive",
        "dictionaries.component": "/{v}/components/{component}",
        "dictionaries.update_component": "/{v}/components/{component}",
    }

    def __init__(
        self,
        url: str | Sequence[str] | None = None,
        auth: Auth | None = None,
        *,
        org_id: str | int | None = None,
        cloud_org_id: str | int | None = None,
        api_version: str = "v2",
        headers: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        if org_id is not None and cloud_org_id is not None:
            raise ValueError("an organization has an org_id or a cloud_org_id, not both")
        of_org = {"X-Org-ID": org_id, "X-Cloud-Org-ID": cloud_org_id}
        super().__init__(
            url,
            auth,
            headers={
                **{name: str(value) for name, value in of_org.items() if value is not None},
                **(headers or {}),
            },
            **kwargs,
        )
        self._version = api_version

    @property
    def issues(self) -> Issues:
        return Issues(self, self._version)

    @property
    def comments(self) -> Comments:
        return Comments(self, self._version)

    @property
    def links(self) -> Links:
        return Links(self, self._version)

    @property
    def remote_links(self) -> RemoteLinks:
        return RemoteLinks(self, self._version)

    @property
    def attachments(self) -> Attachments:
        return Attachments(self, self._version)

    @property
    def bulk(self) -> Bulk:
        return Bulk(self, self._version)

    @property
    def queues(self) -> Queues:
        return Queues(self, self._version)

    @property
    def dictionaries(self) -> Dictionaries:
        return Dictionaries(self, self._version)

    def myself(self) -> User:
        """Whose token it is."""
        found = self.request("myself", "GET", at={"v": self._version}).data
        # Documented as a list of one; published code takes it for an object.
        if isinstance(found, list) and len(found) == 1:
            found = found[0]
        return User.from_dict(found)

    def parse_error(self, response: Response, /) -> ApiResponseError:
        """By `errorMessages` and `errors` of the answer."""
        if response.where.op == "issues.scroll_clear":
            # Its words may have the tokens, which are sent under no name that tells them.
            error = self.error_for(response, "the scroll was not freed")
            error.body = ""
            return error
        found = decoded_object(response)
        messages, fields = found.get("errorMessages"), found.get("errors")
        if not isinstance(messages, list) or not isinstance(fields, dict | None):
            return super().parse_error(response)
        return self.error_for(
            response,
            "; ".join(map(str, messages)),
            fields={str(name): str(why) for name, why in (fields or {}).items()},
        )

    def error_for(
        self,
        response: Response,
        message: str,
        *,
        code: str = "",
        fields: Mapping[str, str] | None = None,
    ) -> ApiResponseError:
        """Of an edit, 409 and 412 are both VersionConflict: which one it is differs by object."""
        error = super().error_for(response, message, code=code, fields=fields)
        if response.where.op not in _EDITS or response.status not in (409, 412):
            return error
        return VersionConflict(
            message,
            where=error.where,
            status=error.status,
            code=code,
            fields=fields,
            body=error.body,
            retry_after=error.retry_after,
        )
