"""Sandbox: tasks that run somewhere, and the resources, immutable files, that they leave.

    client = SandboxClient(auth=OAuthToken(token_from_env()))
    [newest] = client.resources.list(type="BUILD", state="READY", order="-id", limit=1)
    client.resources.download(newest.id, "app.tgz")     # the whole file with its md5, or none

    task = client.run("BUILD", owner="SEARCH", input={"branch": "main"}, wait=3600.0)
    if task.group is TaskGroup.SUCCEEDED:
        client.tasks.output(task.id)

Resources are as public code knows them. Tasks are our proposal: where the names of states differ,
`status_groups` says what each one means, and `paths` where things are. Another version of the API
is another *url*. The XML-RPC of old is not spoken.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, BinaryIO, ClassVar, Literal

from sepelib.util.deadline import deadline

from ._sandbox_download import ChecksumMismatch, ResourceNotReady, download
from ._sandbox_tasks import BatchItem, Task, TaskGroup, Tasks
from ._upload import uploaded
from .auth import Auth, TokenSource
from .base import ApiClient, Response, Stream
from .contract import Card
from .errors import CredentialsUnavailable, Forbidden
from .model import Record, key, record
from .paging import LimitOffset, Pager, Step

__all__ = [
    "PROXY",
    "BatchItem",
    "ChecksumMismatch",
    "Resource",
    "ResourceNotReady",
    "Resources",
    "SandboxClient",
    "Task",
    "TaskGroup",
    "Tasks",
    "token_from_env",
]

PROXY = "https://proxy.sandbox.yandex-team.ru"
"""Where resources of the default URL are downloaded from."""

CARD = Card(
    service="sandbox",
    purpose="runs tasks and keeps their output as resources",
    confidence="public-code",
    sources=("YATOOL", "PERF"),
    auth="OAuth; a bad token is a 403",
    endpoints=(
        "GET /resource/{id}",
        "GET /resource",
        "GET /resource/{id}/data/http",
        "POST /upload",
        "POST /task",
        "GET /task/{id}",
        "GET /task",
        "PUT /task/{id}",
        "PUT /batch/tasks",
        "GET /task/{id}/output",
    ),
    base_url="https://sandbox.yandex-team.ru/api/v1.0",
    inferred=("all of the tasks", "the upload", "the envelope of lists"),
)

_log = logging.getLogger(__name__)


def _urls(value: Any) -> Any:
    """Links are texts, or objects with a `url`."""
    if not isinstance(value, list):
        return ()
    found = [one.get("url") if isinstance(one, Mapping) else one for one in value]
    return tuple(url for url in found if isinstance(url, str))


@record
class Resource(Record):
    """A file, or with *multifile* several. Only those with the *state* READY can be used."""

    id: int | None = None
    type: str | None = None
    owner: str | None = None
    state: str = "DELETED"
    file_name: str | None = None
    md5: str | None = None
    multifile: bool = False
    skynet_id: str | None = None
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    proxy: str | None = key("http.proxy")
    links: tuple[str, ...] = key("http.links", of=_urls, default=())
    task_id: int | None = key("task.id")

    @property
    def is_ready(self) -> bool:
        return self.state == "READY"


def token_from_env() -> TokenSource:
    """The token where Sandbox's own tools look for it.

    SANDBOX_TOKEN, the file that SANDBOX_TOKEN_PATH names, or inside of a task
    SANDBOX_SESSION_TOKEN; the first of them that is set now. CredentialsUnavailable: none is.
    """
    if os.environ.get("SANDBOX_TOKEN"):
        return TokenSource.env("SANDBOX_TOKEN")
    if path := os.environ.get("SANDBOX_TOKEN_PATH"):
        return TokenSource.file(path)
    if os.environ.get("SANDBOX_SESSION_TOKEN"):
        return TokenSource.env("SANDBOX_SESSION_TOKEN")
    raise CredentialsUnavailable("none of SANDBOX_TOKEN, SANDBOX_TOKEN_PATH is set")


class SandboxClient(ApiClient):
    """`resources`, `tasks`, and `run()` over both; threads and greenlets may share one.

    *proxy*: where to download from when a resource does not say; `PROXY` for the default *url*,
    else nowhere. Downloads go to the hosts of *url*, of *proxy* and of `allowed_origins`, and to
    no other; our token goes to a proxy, not to the hosts of links.
    *origin*: who downloads, for the statistics of the proxy.
    *anonymous_reads*: a read of resources that is forbidden with our token is repeated without
    one, as Sandbox's own tools do; a WARNING is logged.
    *status_groups*: {name of a status: its group}, beside the names of the groups themselves.
    """

    service = "sandbox"
    default_url = "https://sandbox.yandex-team.ru/api/v1.0"
    PATHS: ClassVar[Mapping[str, str]] = {
        "resources.get": "/resource/{id}",
        "resources.touch": "/resource/{id}",
        "resources.list": "/resource",
        "resources.links": "/resource/{id}/data/http",
        "resources.upload": "/upload",
        "tasks.create": "/task",
        "tasks.update": "/task/{id}",
        "tasks.get": "/task/{id}",
        "tasks.list": "/task",
        "tasks.batch": "/batch/tasks",
        "tasks.output": "/task/{id}/output",
    }
    OPTIONS: ClassVar[Mapping[str, type | tuple[type, ...]]] = {
        "proxy": str,
        "origin": str,
        "anonymous_reads": bool,
        "status_groups": Mapping,
        "allowed_origins": (list, tuple),
    }

    def __init__(
        self,
        url: str | Sequence[str] | None = None,
        auth: Auth | None = None,
        *,
        proxy: str | None = None,
        origin: str | None = None,
        anonymous_reads: bool = True,
        status_groups: Mapping[str, str] | None = None,
        allowed_origins: Iterable[str] = (),
        **kwargs: Any,
    ) -> None:
        if url is None and proxy is None:
            proxy = PROXY
        origins = [*allowed_origins, *([] if proxy is None else [proxy])]
        super().__init__(url, auth, allowed_origins=origins, **kwargs)
        self._proxy = proxy
        self._origin = origin
        self._anonymous_reads = anonymous_reads
        self.resources = Resources(self)
        self.tasks = Tasks(self, status_groups or {})

    def run(
        self,
        type: str,
        *,
        owner: str | None = None,
        description: str | None = None,
        input: Mapping[str, Any] | None = None,
        tags: Iterable[str] = (),
        kill_timeout: float | None = None,
        wait: float | None = None,
    ) -> Task:
        """Create a task and start it; with *wait*, see `Tasks.wait`, for so many seconds.

        BatchError: it did not start, and is left as a draft.
        """
        task = self.tasks.create(
            type,
            owner=owner,
            description=description,
            input=input,
            tags=tags,
            kill_timeout=kill_timeout,
        )
        number = task.id
        assert number is not None  # create() has seen to it
        self.tasks.start(number)
        return self.tasks.get(number) if wait is None else self.tasks.wait(number, wait)

    def _read(self, op: str, **request: Any) -> Response:
        answer: Response = self._anonymously(op, stream=False, **request)
        return answer

    def _stream(self, op: str, **request: Any) -> Stream:
        answer: Stream = self._anonymously(op, stream=True, **request)
        return answer

    def _anonymously(self, op: str, **request: Any) -> Any:
        """A read, perhaps without our token. A client's own headers are sent in either case."""
        total = request.get("total_timeout", self._total_timeout)
        with deadline(total, clock=self._clock):
            try:
                return self.request(op, "GET", **request)
            except Forbidden as error:
                if self._auth is None or not self._anonymous_reads or "auth" in request:
                    raise
                refused = error
            _log.warning("%s: asked again without a token", refused)
            try:
                return self.request(op, "GET", auth=None, **request)
            except Forbidden:
                raise refused from None


class Resources:
    """The resources of a client."""

    def __init__(self, client: SandboxClient) -> None:
        self._client = client

    def get(self, id: int, *, touch: bool = False, links: bool = True) -> Resource:
        """One resource. *touch*: its life begins anew. Without *links* the answer is short."""
        headers = {"X-Touch-Resource": "1"} if touch else {}
        if not links:
            headers["X-No-Links"] = "1"
        op = "resources.touch" if touch else "resources.get"
        return Resource.from_dict(self._client._read(op, at={"id": id}, headers=headers).data)

    def touch(self, id: int) -> Resource:
        """Let the time until it is removed begin anew."""
        return self.get(id, touch=True, links=False)

    def list(
        self,
        *,
        type: str | None = None,
        owner: str | None = None,
        state: str | None = None,
        attrs: Mapping[str, Any] | None = None,
        order: str | None = None,
        limit: int | None = None,
    ) -> Pager[Resource]:
        """Those that fit. *attrs*: attributes that they have; *order*: a field, "-id" downwards."""
        params = {
            "type": type,
            "owner": owner,
            "state": state,
            "attrs": None if attrs is None else json.dumps(attrs, sort_keys=True),
            "order": order,
        }

        def send(step: Step) -> Response:
            return self._client._read("resources.list", params={**params, **step.params})

        return Pager(send, LimitOffset(), of=Resource.from_dict, limit=limit)

    def links(self, id: int) -> Sequence[str]:
        """URLs of its copies, on hosts that Sandbox names."""
        return tuple(_urls(self._client._read("resources.links", at={"id": id}).data))

    def download(
        self,
        id: int,
        to: str | os.PathLike[str] | BinaryIO,
        *,
        verify_md5: bool = True,
        timeout: float | None = 3600.0,
    ) -> Resource:
        """Put the content into the file *to*: the whole of it, or nothing.

        *to* a path: the file appears when all is there and checked. A binary file: it is written
        from its position on, and cut back to it after a failure, so it has to be seekable.
        Tried are the proxy, twice, each link, and the proxy again, within *timeout* seconds.
        Several files come as one .tgz, from the proxy only, and without an md5.
        Raises ResourceNotReady, ChecksumMismatch, ForeignLink when all that there is is on hosts
        not allowed, or the error of the last try.
        """
        return download(self._client, id, to, verify_md5=verify_md5, timeout=timeout)

    def upload(
        self,
        file: BinaryIO,
        *,
        name: str | None = None,
        type: str = "OTHER_RESOURCE",
        owner: str | None = None,
        ttl: int | Literal["inf"] = 14,
        description: str | None = None,
        timeout: float | None = 3600.0,
    ) -> Resource:
        """A new resource of what *file* has from where it is. Not repeated once it was sent.

        *ttl*: days, "inf" only for an *owner*. A seekable file is read while it is sent, any other
        is held in memory.
        """
        if ttl == "inf" and owner is None:
            raise ValueError("a resource that stays for ever has an owner: give owner=")
        answer = self._client.request(
            "resources.upload",
            "POST",
            params={"type": type, "owner": owner, "ttl": ttl, "description": description},
            total_timeout=timeout,
            **uploaded(file, name or _name_of(file)),
        )
        return Resource.from_dict(answer.data)


def _name_of(file: BinaryIO) -> str:
    name = getattr(file, "name", None)
    return os.path.basename(name) if isinstance(name, str) and name else "file"
