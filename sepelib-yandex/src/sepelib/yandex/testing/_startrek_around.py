"""Comments, links and files of the fake tracker."""

from __future__ import annotations

import mimetypes
from typing import Any

from ._request import FakeRequest, Refusal, Reply
from ._routes import route
from ._startrek_issues import IssueRoutes
from ._startrek_state import LINK_KINDS, Issue, StoredFile, refused, timestamp

__all__ = ["AroundRoutes"]

_COMMENT = frozenset({"text", "summonees", "maillistSummonees", "attachmentIds"})


class AroundRoutes(IssueRoutes):
    @route("GET", "/{v}/issues/{issue}/comments", op="comments.list", query=("expand",))
    def _list_comments(self, request: FakeRequest) -> object:
        issue = self.issue(request.args["issue"])
        return self.answer_with(request, self.state.comments.get(issue["id"], []))

    @route(
        "POST",
        "/{v}/issues/{issue}/comments",
        op="comments.create",
        query=("isAddToFollowers", "expand"),
        body="json",
    )
    def _create_comment(self, request: FakeRequest) -> object:
        issue = self.issue(request.args["issue"])
        comment = self.comment(issue, self.body_of(request))
        if request.query.get("isAddToFollowers") == "true":
            issue = self.issue(issue["id"])
            me = self.reference_to("users", self.me)
            if me not in issue["followers"]:
                followers = [*issue["followers"], me]
                self.state.issues[issue["id"]] = {**issue, "followers": followers}
        return Reply(201, json=self.answer_with(request, comment))

    @route(
        "PATCH",
        "/{v}/issues/{issue}/comments/{comment}",
        op="comments.update",
        query=("version", "expand"),
        body="json",
    )
    def _update_comment(self, request: FakeRequest) -> object:
        issue = self.issue(request.args["issue"])
        comment = self._comment(issue, request.args["comment"])
        self.check_version(request, comment["version"])
        comment |= self._said(issue, self.body_of(request))
        comment |= {
            "version": comment["version"] + 1,
            "updatedAt": timestamp(self.now),
            "updatedBy": self.reference_to("users", self.me),
        }
        return self.answer_with(request, comment)

    @route("DELETE", "/{v}/issues/{issue}/comments/{comment}", op="comments.delete")
    def _delete_comment(self, request: FakeRequest) -> object:
        issue = self.issue(request.args["issue"])
        comment = self._comment(issue, request.args["comment"])
        self.state.comments[issue["id"]].remove(comment)
        return Reply(204)

    @route("GET", "/{v}/issues/{issue}/links", op="links.list")
    def _list_links(self, request: FakeRequest) -> object:
        issue = self.issue(request.args["issue"])
        return self.answer_with(request, self.state.links.get(issue["id"], []))

    @route("POST", "/{v}/issues/{issue}/links", op="links.create", body="json")
    def _create_link(self, request: FakeRequest) -> object:
        issue = self.issue(request.args["issue"])
        body = self.body_of(request)
        try:
            other = self.entry("issues", body.get("issue"), status=400)
        except Refusal as unknown:
            raise refused(400, issue=unknown.message) from None
        if other["id"] == issue["id"]:
            raise refused(400, issue="the same one")
        found = self.link(issue, str(body.get("relationship")), other)
        return Reply(201, json=self.answer_with(request, found))

    @route("DELETE", "/{v}/issues/{issue}/links/{link}", op="links.delete")
    def _delete_link(self, request: FakeRequest) -> object:
        issue = self.issue(request.args["issue"])
        name = request.args["link"]
        if not any(str(one["id"]) == name for one in self.state.links.get(issue["id"], [])):
            raise refused(404, f"no link {name}")
        for several in self.state.links.values():
            several[:] = [one for one in several if str(one["id"]) != name]
        return Reply(204)

    @route("GET", "/{v}/issues/{issue}/remotelinks", op="remote_links.list")
    def _list_remote_links(self, request: FakeRequest) -> object:
        issue = self.issue(request.args["issue"])
        return self.answer_with(request, self.state.remote_links.get(issue["id"], []))

    @route(
        "POST",
        "/{v}/issues/{issue}/remotelinks",
        op="remote_links.create",
        query=("backlink",),
        body="json",
    )
    def _create_remote_link(self, request: FakeRequest) -> object:
        issue = self.issue(request.args["issue"])
        body = self.body_of(request)
        missing = [name for name in ("relationship", "key", "origin") if not body.get(name)]
        if missing:
            raise refused(422, **dict.fromkeys(missing, "required"))
        number = self.state.next_id("remote links")
        found = {
            "self": f"/issues/{issue['key']}/remotelinks/{number}",
            "id": number,
            "type": {"id": str(body["relationship"]).lower()},
            "direction": "outward",
            "object": {"key": body["key"], "application": {"id": body["origin"]}},
            "createdAt": timestamp(self.now),
        }
        self.state.remote_links.setdefault(issue["id"], []).append(found)
        return Reply(201, json=self.answer_with(request, found))

    @route("GET", "/{v}/issues/{issue}/attachments", op="attachments.list")
    def _list_attachments(self, request: FakeRequest) -> object:
        issue = self.issue(request.args["issue"])
        files = [one.answer for one in self.state.files.values() if one.issue == issue["id"]]
        return self.answer_with(request, files)

    @route(
        "POST",
        "/{v}/issues/{issue}/attachments",
        op="attachments.upload",
        query=("filename",),
        body="multipart",
    )
    def _upload(self, request: FakeRequest) -> object:
        issue = self.issue(request.args["issue"])
        file = self._stored(request)
        self.attach(file, issue)
        return Reply(201, json=self.answer_with(request, file.answer))

    @route(
        "POST",
        "/{v}/attachments",
        op="attachments.upload_temporary",
        query=("filename",),
        body="multipart",
    )
    def _upload_temporary(self, request: FakeRequest) -> object:
        return Reply(201, json=self.answer_with(request, self._stored(request).answer))

    @route("GET", "/{v}/issues/{issue}/attachments/{file}/{name}", op="attachments.open")
    def _download(self, request: FakeRequest) -> object:
        file = self._file(request)
        return Reply(body=file.content, content_type=file.answer["mimetype"])

    @route("DELETE", "/{v}/issues/{issue}/attachments/{file}", op="attachments.delete")
    def _delete_attachment(self, request: FakeRequest) -> object:
        del self.state.files[self._file(request).answer["id"]]
        return Reply(204)

    def add_attachment(self, issue: str, name: str, content: bytes) -> dict[str, Any]:
        """A file of an issue."""
        file = self._new_file(name, content)
        self.attach(file, self.issue(issue))
        return file.answer

    def comment(self, issue: Issue, body: dict[str, Any]) -> dict[str, Any]:
        """A new comment."""
        if not body.get("text"):
            raise refused(422, text="required")
        number = self.state.next_id("comments")
        now, me = timestamp(self.now), self.reference_to("users", self.me)
        comment = {
            "self": f"/issues/{issue['key']}/comments/{number}",
            "id": number,
            "longId": f"{number:024x}",
            "version": 1,
            "text": "",
            "createdBy": me,
            "updatedBy": me,
            "createdAt": now,
            "updatedAt": now,
            **self._said(issue, body),
        }
        self.state.comments.setdefault(issue["id"], []).append(comment)
        issue = self.state.issues[issue["id"]]
        self.state.issues[issue["id"]] = {**issue, "lastCommentUpdatedAt": now}
        return comment

    def link(self, issue: Issue, relationship: str, other: Issue) -> dict[str, Any]:
        """A new link, seen from both sides."""
        if relationship not in LINK_KINDS:
            raise refused(400, relationship=f"none of {', '.join(LINK_KINDS)}")
        number = self.state.next_id("links")
        kind = LINK_KINDS[relationship]
        sides = ((issue, relationship, other), (other, kind.opposite, issue))
        for one, said, seen in sides:
            shown = {
                "self": f"/issues/{one['key']}/links/{number}",
                "id": number,
                "type": self.state.tables["linktypes"][kind.type],
                "direction": LINK_KINDS[said].direction,
                "object": self.reference_to("issues", seen["id"]),
                "createdBy": self.reference_to("users", self.me),
                "createdAt": timestamp(self.now),
            }
            self.state.links.setdefault(one["id"], []).append(shown)
        return self.state.links[issue["id"]][-1]

    def _said(self, issue: Issue, body: dict[str, Any]) -> dict[str, Any]:
        strange = body.keys() - _COMMENT
        if strange:
            raise refused(400, **dict.fromkeys(sorted(strange), "unknown"))
        files = self.taken_files(body.get("attachmentIds"))
        said: dict[str, Any] = {
            name: body[name] for name in ("text", "maillistSummonees") if name in body
        }
        if body.get("summonees"):
            said["summonees"] = [self.reference_to("users", one) for one in body["summonees"]]
        for file in files:
            self.attach(file, issue)
        if files:
            said["attachments"] = [
                {"self": one.answer["self"], "id": one.answer["id"], "display": one.answer["name"]}
                for one in files
            ]
        return said

    def _comment(self, issue: Issue, name: str) -> dict[str, Any]:
        for one in self.state.comments.get(issue["id"], []):
            if name in (str(one["id"]), one["longId"]):
                return one
        raise refused(404, f"no comment {name}")

    def _stored(self, request: FakeRequest) -> StoredFile:
        sent = request.files.get("file")
        if sent is None:
            raise refused(400, file="no part of that name")
        if len(sent.content) > self.attachment_limit:
            raise refused(413, f"more than {self.attachment_limit} bytes")
        return self._new_file(request.query.get("filename") or sent.name or "file", sent.content)

    def _new_file(self, name: str, content: bytes) -> StoredFile:
        number = str(self.state.next_id("attachments"))
        answer = {
            "self": f"/attachments/{number}",
            "id": number,
            "name": name,
            "createdBy": self.reference_to("users", self.me),
            "createdAt": timestamp(self.now),
            "mimetype": mimetypes.guess_type(name)[0] or "application/octet-stream",
            "size": len(content),
        }
        file = self.state.files[number] = StoredFile(answer, content)
        return file

    def _file(self, request: FakeRequest) -> StoredFile:
        issue = self.issue(request.args["issue"])
        file = self.state.files.get(request.args["file"])
        if file is None or file.issue != issue["id"]:
            raise refused(404, f"no attachment {request.args['file']}")
        return file
