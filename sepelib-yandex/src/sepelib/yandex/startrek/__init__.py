"""Startrek, the issue tracker, which is Yandex Tracker outside.

    client = StartrekClient(auth=OAuthToken(TokenSource.file("/etc/app/token")), org_id="7")

    issue = client.issues.create("TEST", "Disk is full", assignee="ann", tags=["disk"])
    client.comments.create(issue, "On rack 7", summonees=["bob"])
    client.issues.update(issue, tags={"add": ["rack7"]})
    client.issues.execute(issue, "close", resolution="fixed")
    for issue in client.issues.search(filter={"queue": "TEST", "status": "open"}, limit=10):
        print(issue.key, issue.summary, issue["votes"])

Nothing is asked for behind the back: an attribute is never a request, a list asks for each page
when it is wanted. `create` may be repeated, whatever happened to its answer, and makes one issue.
Of all other changes none is sent again once it may have been applied.
"""

from __future__ import annotations

from sepelib.yandex.contract import Card

from ._client import StartrekClient
from ._models import (
    Attachment,
    BulkChange,
    Change,
    Comment,
    Entry,
    Issue,
    Link,
    Queue,
    Reference,
    RemoteLink,
    Transition,
    User,
)

__all__ = [
    "Attachment",
    "BulkChange",
    "Change",
    "Comment",
    "Entry",
    "Issue",
    "Link",
    "Queue",
    "Reference",
    "RemoteLink",
    "StartrekClient",
    "Transition",
    "User",
]

CARD = Card(
    service="startrek",
    purpose="the issue tracker: issues, their search, comments, links, files, bulk changes",
    confidence="public-doc",
    sources=("TRK-DOC", "TRK-CLI", "TRK-ISS", "TRK-MCP"),
    auth="OAuth or Bearer; X-Org-ID or X-Cloud-Org-ID",
    endpoints=(
        "GET /v2/myself",
        "GET PATCH /v2/issues/{issue}",
        "POST /v2/issues/",
        "POST /v2/issues/_search, _count, _findByUnique",
        "POST /v2/system/search/scroll/_clear",
        "POST /v2/issues/{issue}/_move, _clone",
        "/v2/issues/{issue}/transitions, comments, links, remotelinks, attachments, changelog",
        "POST /v2/bulkchange/_update, _transition, _move",
        "GET /v2/bulkchange/{id}",
        "GET /v2/queues",
    ),
    base_url="https://api.tracker.yandex.net",
    inferred=(
        "that an installation of one's own wants no organization header",
        "that pages of a scroll must not be asked for twice",
        "the fields of a remote link beside those that are sent",
        "what _clone answers",
        "the version in an edit of a component is the parameter that issues have",
    ),
)
