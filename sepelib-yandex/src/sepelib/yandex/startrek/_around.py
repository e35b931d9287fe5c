"""What hangs on an issue: comments, links, files."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from string import punctuation
from typing import Any, BinaryIO, Unpack
from urllib.parse import quote

from sepelib.yandex._shown import shown_url
from sepelib.yandex._upload import uploaded
from sepelib.yandex.base import Stream
from sepelib.yandex.errors import ApiProtocolError, Where
from sepelib.yandex.paging import Pager

from ._models import Attachment, Comment, Issue, Link, RemoteLink, plain
from ._part import Part, Times, id_of, key_of

__all__ = ["Attachments", "Comments", "Links", "RemoteLinks"]

_DOTS = re.compile(r"/(?:\.|%2e){1,2}(?:[/?#]|$)", re.IGNORECASE)  # a segment of them


class Comments(Part):
    """The comments of issues. A comment has no `unique`: a new one is sent once only."""

    __slots__ = ()

    def list(self, issue: str | Issue, *, limit: int | None = None) -> Pager[Comment]:
        at = {"issue": key_of(issue)}
        return self._listed("comments.list", at, of=Comment.from_dict, limit=limit)

    def create(
        self,
        issue: str | Issue,
        text: str,
        *,
        summonees: Sequence[Any] | None = None,
        maillist_summonees: Sequence[str] | None = None,
        attachment_ids: Sequence[str | int] | None = None,
        add_to_followers: bool | None = None,
    ) -> Comment:
        """*summonees*: logins who are asked to look. *attachment_ids*: of temporary uploads.

        *add_to_followers*: whether who comments follows the issue from now on.
        """
        body = {
            "text": text,
            "summonees": summonees,
            "maillistSummonees": maillist_summonees,
            "attachmentIds": attachment_ids,
        }
        answer = self._ask(
            "comments.create",
            "POST",
            {"issue": key_of(issue)},
            params={"isAddToFollowers": add_to_followers},
            json=_given(body),
        )
        return Comment.from_dict(answer.data)

    def update(
        self,
        issue: str | Issue,
        comment: int | str | Comment,
        text: str,
        *,
        summonees: Sequence[Any] | None = None,
        maillist_summonees: Sequence[str] | None = None,
        attachment_ids: Sequence[str | int] | None = None,
    ) -> Comment:
        """The comment with another text."""
        body = {
            "text": text,
            "summonees": summonees,
            "maillistSummonees": maillist_summonees,
            "attachmentIds": attachment_ids,
        }
        at = {"issue": key_of(issue), "comment": id_of(comment)}
        answer = self._ask("comments.update", "PATCH", at, json=_given(body))
        return Comment.from_dict(answer.data)

    def delete(self, issue: str | Issue, comment: int | str | Comment) -> None:
        self._ask("comments.delete", "DELETE", {"issue": key_of(issue), "comment": id_of(comment)})


class Links(Part):
    """Links between issues."""

    __slots__ = ()

    def list(self, issue: str | Issue) -> Pager[Link]:
        return self._listed("links.list", {"issue": key_of(issue)}, of=Link.from_dict)

    def create(self, issue: str | Issue, relationship: str, other: str | Issue) -> Link:
        """Say what *issue* is to the *other*.

        *relationship*: relates, depends on, is dependent by, is subtask for, is parent task for,
        duplicates, is duplicated by, is epic of, has epic.
        """
        body = {"relationship": relationship, "issue": key_of(other)}
        answer = self._ask("links.create", "POST", {"issue": key_of(issue)}, json=body)
        return Link.from_dict(answer.data)

    def delete(self, issue: str | Issue, link: int | str | Link) -> None:
        self._ask("links.delete", "DELETE", {"issue": key_of(issue), "link": id_of(link)})


class RemoteLinks(Part):
    """Links from issues to objects of other applications."""

    __slots__ = ()

    def list(self, issue: str | Issue) -> Pager[RemoteLink]:
        at = {"issue": key_of(issue)}
        return self._listed("remote_links.list", at, of=RemoteLink.from_dict)

    def create(
        self,
        issue: str | Issue,
        key: str,
        origin: str,
        *,
        relationship: str = "RELATES",
        backlink: bool | None = None,
    ) -> RemoteLink:
        """*key*: of the object in the application *origin*. *backlink*: tell it there as well."""
        answer = self._ask(
            "remote_links.create",
            "POST",
            {"issue": key_of(issue)},
            params={"backlink": backlink},
            json={"relationship": relationship, "key": key, "origin": origin},
        )
        return RemoteLink.from_dict(answer.data)


class Attachments(Part):
    """Files of issues.

    An upload is read from the file while it is sent. A seekable file is rewound when the tracker
    has refused it and it is sent again; any other is held in memory, and sent once. It is never
    sent again once it may have been applied.
    *times*: `timeout` and `total_timeout` in place of the client's, for large ones.
    """

    __slots__ = ()

    def list(self, issue: str | Issue) -> Pager[Attachment]:
        at = {"issue": key_of(issue)}
        return self._listed("attachments.list", at, of=Attachment.from_dict)

    def upload(
        self, issue: str | Issue, file: BinaryIO | bytes, filename: str, **times: Unpack[Times]
    ) -> Attachment:
        """Attach what *file* has from where it is, as *filename*; 1024 MB at most."""
        return self._upload("attachments.upload", {"issue": key_of(issue)}, file, filename, times)

    def upload_temporary(
        self, file: BinaryIO | bytes, filename: str, **times: Unpack[Times]
    ) -> Attachment:
        """A file that no issue has yet: its id is for the `attachment_ids` of one, or a comment."""
        return self._upload("attachments.upload_temporary", {}, file, filename, times)

    def open(self, attachment: Attachment | str, **times: Unpack[Times]) -> Stream:
        """The bytes of an attachment, or of its `content` URL, as a stream; close it.

        ForeignLink, and no token leaves, when that URL is of another host than the client's.
        """
        url = attachment.content if isinstance(attachment, Attachment) else attachment
        if not isinstance(url, str) or not url:
            raise ValueError("the attachment has no content URL")
        # The name of a file may stand in it as it is. Another host stays another one by this.
        url = quote(url, safe=punctuation, errors="surrogatepass")
        if _DOTS.search(url):
            # Clients resolve these, to the issue itself for one, which would come as the file.
            where = Where("startrek", "attachments.open", "GET", shown_url(url))
            raise ApiProtocolError("a content URL with . or .. is no name of a file", where=where)
        return self._client.request("attachments.open", "GET", link=url, stream=True, **times)

    def open_named(
        self, issue: str | Issue, attachment: str | int, name: str, **times: Unpack[Times]
    ) -> Stream:
        """As `open`, of an attachment known by its id and the name of the file."""
        at = self._at({"issue": key_of(issue), "attachment": attachment, "name": name})
        return self._client.request("attachments.open", "GET", at=at, stream=True, **times)

    def download(self, attachment: Attachment | str, file: BinaryIO, **times: Unpack[Times]) -> int:
        """Write the bytes to *file*, as they come; how many. After an error, some are there.

        ApiProtocolError when there are not as many as the attachment says.
        """
        with self.open(attachment, **times) as stream:
            size = stream.save(file)
        told = attachment.size if isinstance(attachment, Attachment) else None
        if isinstance(told, int) and size != told:
            reason = f"{size} bytes came, and {told} were told of"
            raise ApiProtocolError(reason, where=stream.where, status=stream.status)
        return size

    def delete(self, issue: str | Issue, attachment: str | int | Attachment) -> None:
        at = {"issue": key_of(issue), "attachment": id_of(attachment)}
        self._ask("attachments.delete", "DELETE", at)

    def _upload(
        self,
        op: str,
        at: dict[str, str | int],
        file: BinaryIO | bytes,
        filename: str,
        times: Times,
    ) -> Attachment:
        file = io.BytesIO(file) if isinstance(file, bytes) else file
        sent = uploaded(file)
        answer = self._ask(op, "POST", at, params={"filename": filename}, **sent, **times)
        return Attachment.from_dict(answer.data)


def _given(body: dict[str, Any]) -> Any:
    return plain({name: value for name, value in body.items() if value is not None})
