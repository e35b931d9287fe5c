"""The fake tracker's state and how it changes; its routes are in the modules beside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote

from sepelib.util.testing import Clock

from ._request import FakeRequest, Refusal, Reply
from ._service import FakeService
from ._startrek_state import (
    LISTS,
    REFERENCES,
    Issue,
    StartrekState,
    StoredFile,
    Way,
    changed,
    refused,
    timestamp,
)

__all__ = ["StartrekBase"]

_VERSIONS = ("v2", "v3")
_ORG_HEADERS = ("X-Org-ID", "X-Cloud-Org-ID")
_URLS = ("self", "content")
_KINDS: Mapping[str, tuple[type | tuple[type, ...], str]] = {
    "attachmentIds": (list, "no list"),
    "filter": (dict, "no object"),
    "issues": (list, "no list"),
    "keys": ((list, str), "no list of texts"),
    "order": ((list, str), "no list of texts"),
    "query": (str, "no text"),
    "summonees": (list, "no list"),
    "unique": (str, "no text"),
    "values": (dict, "no object"),
}
_OF_TEXTS = ("keys", "order")
_READ_ONLY = frozenset(
    {"aliases", "createdAt", "createdBy", "id", "key", "previousQueue", "previousStatus", "self"}
    | {"updatedAt", "updatedBy", "version", "votes", "lastCommentUpdatedAt"}
)


class StartrekBase(FakeService[StartrekState]):
    """State, builders, references."""

    service = "startrek"

    def __init__(
        self,
        *,
        org_id: str | None = None,
        cloud_org_id: str | None = None,
        myself_as_list: bool = False,
        search_cap: int = 10_000,
        bulk_hidden: int = 1,
        bulk_polls: int = 1,
        attachment_limit: int = 1024 << 20,
        strict: bool = True,
        clock: Clock | None = None,
    ) -> None:
        self.org_id = org_id
        self.cloud_org_id = cloud_org_id
        self.myself_as_list = myself_as_list
        self.search_cap = search_cap
        self.bulk_hidden = bulk_hidden
        self.bulk_polls = bulk_polls
        self.attachment_limit = attachment_limit
        super().__init__(strict=strict, clock=clock)

    def new_state(self) -> StartrekState:
        state = StartrekState()
        state.me = "1"
        state.tables["users"]["1"] = _user("1", "robot", "Robot")
        return state

    def config(self) -> dict[str, Any]:
        """A config section that points the client of this service here."""
        section = super().config()
        orgs = {"org_id": self.org_id, "cloud_org_id": self.cloud_org_id}
        return {**section, **{name: org for name, org in orgs.items() if org is not None}}

    def authorize(self, request: FakeRequest) -> None:
        """Version, token, organization."""
        if request.args["v"] not in _VERSIONS:
            raise refused(404, f"no version {request.args['v']}")
        if request.token not in self.tokens:
            raise refused(401, "a valid token is needed")
        for header, org in zip(_ORG_HEADERS, (self.org_id, self.cloud_org_id), strict=True):
            if org is not None and request.headers.get(header) != org:
                raise refused(403, "no access to this organization")

    def render(self, refusal: Refusal, request: FakeRequest) -> Reply:
        """An error with its three keys."""
        body = {
            "errors": refusal.details,
            "errorMessages": [refusal.message] if refusal.message else [],
            "statusCode": refusal.status,
        }
        return Reply(refusal.status, json=body, headers=refusal.headers)

    def catch_up(self) -> None:
        """Forget the scrolls whose time is over."""
        scrolls = self.state.scrolls
        for name in [name for name, one in scrolls.items() if one.expires <= self.clock.now]:
            del scrolls[name]

    # Builders.

    def add_user(self, login: str, display: str | None = None) -> dict[str, Any]:
        number = str(len(self.state.tables["users"]) + 1)
        user = self.state.tables["users"][number] = _user(number, login, display or login.title())
        return user

    def add_queue(self, key: str, name: str | None = None, **fields: Any) -> dict[str, Any]:
        """A queue; *fields* beside those that all have."""
        return self._add("queues", {"key": key, "name": name or key, **fields})

    def add_version(self, queue: str, name: str, **fields: Any) -> dict[str, Any]:
        """A version of the product that *queue* is about."""
        of = self._reference("queues", self.entry("queues", queue))
        entry = {"queue": of, "name": name, "released": False, "archived": False, **fields}
        return self._add("versions", entry)

    def add_component(self, queue: str, name: str, **fields: Any) -> dict[str, Any]:
        """A component of *queue*."""
        of = self._reference("queues", self.entry("queues", queue))
        return self._add("components", {"queue": of, "name": name, "archived": False, **fields})

    def add_entry(self, table: str, key: str, display: str | None = None) -> dict[str, Any]:
        """Of statuses, priorities, resolutions, issuetypes, worklog."""
        return self._add(table, {"key": key, "name": display or key})

    def add_field(self, name: str, kind: str = "string") -> dict[str, Any]:
        """A field of issues; *kind* array: of many values."""
        entry = {"self": f"/fields/{name}", "id": name, "name": name, "schema": {"type": kind}}
        self.state.tables["fields"][name] = entry
        return entry

    def add_transition(
        self,
        name: str,
        source: Iterable[str],
        target: str,
        *,
        fields: Iterable[str] = (),
        required: Iterable[str] = (),
        resets: Iterable[str] = (),
    ) -> None:
        """A way from the statuses *source* to *target*, with a screen of *fields*."""
        screen = tuple(dict.fromkeys((*fields, *required)))
        way = Way(name, name.title(), tuple(source), target, screen, tuple(required), tuple(resets))
        self.state.workflow.append(way)

    def add_automation(self, queue: str, **fields: Any) -> None:
        """Let the queue edit each issue right after its creation, which makes its version 2."""
        self.state.automation[queue] = fields

    def add_query(self, text: str, predicate: Callable[[Issue], bool]) -> None:
        """Let the search know the *text* of a query; any other is refused."""
        self.state.queries[text] = predicate

    def add_issue(self, queue: str, summary: str = "", **fields: Any) -> Issue:
        """As if somebody had created it, automation aside."""
        return self.created({"queue": queue, "summary": summary, **fields})

    def issue(self, name: str) -> Issue:
        """By key, former key or id; a Refusal of 404 when there is none."""
        number = self.state.keys.get(name, name)
        if number not in self.state.issues:
            raise refused(404, f"no issue {name}")
        return self.state.issues[number]

    # What routes are written with.

    def entry(self, table: str, name: Any, *, status: int = 404) -> dict[str, Any]:
        """Of a table, by id, key or login, or by an object with one of them."""
        if isinstance(name, Mapping):
            name = next((name[k] for k in ("id", "key", "login", "uid") if k in name), None)
        name = str(name)
        if table == "issues":
            number = self.state.keys.get(name, name)
            found = self.state.issues.get(number)
        else:
            entries = self.state.tables[table]
            found = entries.get(name) or next(
                (one for one in entries.values() if name in (one.get("key"), one.get("login"))),
                None,
            )
        if found is None:
            raise refused(status, f"no {name} among {table}")
        return found

    def created(self, body: Mapping[str, Any]) -> Issue:
        """A new issue of the fields in *body*."""
        queue = self.entry("queues", body["queue"], status=400)
        number = f"{self.state.next_id('issues'):024x}"
        now = timestamp(self.now)
        me = self._reference("users", self.me)
        issue: Issue = {
            "self": "",
            "id": number,
            "key": "",
            "version": 1,
            "summary": "",
            "queue": self._reference("queues", queue),
            "status": self._reference("statuses", self.entry("statuses", "open")),
            "type": self._reference("issuetypes", self.entry("issuetypes", "task")),
            "priority": self._reference("priorities", self.entry("priorities", "normal")),
            "createdBy": me,
            "updatedBy": me,
            "createdAt": now,
            "updatedAt": now,
            "followers": [],
            "aliases": [],
            "tags": [],
            "votes": 0,
            "favorite": False,
        }
        issue |= self._keyed(queue["key"])
        for name, value in body.items():
            if name not in ("queue", "unique", "attachmentIds") and value is not None:
                issue[name] = self._changed(issue, name, value)
        files = self.taken_files(body.get("attachmentIds"))
        self.state.issues[number] = issue
        self.state.keys[issue["key"]] = number
        if (unique := body.get("unique")) is not None:
            self.state.unique[unique] = number
        for file in files:
            self.attach(file, issue)
        self._log(issue, "IssueCreated", [])
        return issue

    def edited(
        self,
        issue: Issue,
        body: Mapping[str, Any],
        *,
        own: Mapping[str, Any] | None = None,
        kind: str = "IssueUpdated",
    ) -> Issue:
        """*issue* changed as a PATCH of *body* says, and by the tracker's *own* values."""
        after = dict(issue)
        files = self.taken_files(body.get("attachmentIds"))
        for name, value in body.items():
            if name != "attachmentIds":
                after[name] = self._changed(issue, name, value)
        after |= own or {}
        names = [name for name in after if after[name] != issue.get(name)]
        after |= {
            "version": issue["version"] + 1,
            "updatedAt": timestamp(self.now),
            "updatedBy": self._reference("users", self.me),
        }
        after = {name: value for name, value in after.items() if value is not None}
        self.state.issues[issue["id"]] = after
        for file in files:
            self.attach(file, after)
        fields = [
            {"field": {"id": name}, "from": issue.get(name), "to": after.get(name)}
            for name in names
        ]
        self._log(after, kind, fields)
        return after

    def moved(self, issue: Issue, target: Any, *, all_fields: bool, initial: bool) -> Issue:
        """*issue* in another queue, under another key."""
        queue = self.entry("queues", target, status=400)
        if queue["key"] == issue["queue"]["key"]:
            raise refused(400, queue="the issue is there")
        own: dict[str, Any] = {
            **self._keyed(queue["key"]),
            "queue": self._reference("queues", queue),
            "previousQueue": issue["queue"],
            "aliases": [*issue["aliases"], issue["key"]],
        }
        if initial:
            own["status"] = self._reference("statuses", self.entry("statuses", "open"))
        if not all_fields:
            own |= {name: None for name in issue if "--" in name}  # of the queue that it leaves
        after = self.edited(issue, {}, own=own, kind="IssueMoved")
        self.state.keys[after["key"]] = after["id"]
        return after

    def taken_files(self, ids: Any) -> list[StoredFile]:
        """The temporary uploads of these ids."""
        found = []
        for one in ids or []:
            file = self.state.files.get(str(one))
            if file is None or file.issue is not None:
                raise refused(400, attachmentIds=f"no temporary attachment {one}")
            found.append(file)
        return found

    def attach(self, file: StoredFile, issue: Issue) -> None:
        file.issue = issue["id"]
        where = f"/issues/{issue['key']}/attachments/{file.answer['id']}"
        name = quote(file.answer["name"], safe="")
        file.answer |= {"self": where, "content": f"{where}/{name}"}

    def check_version(self, request: FakeRequest, current: int, status: int = 409) -> bool:
        """Whether the request names a version; Refusal when it is not the *current* one."""
        said = request.query.get("version") or request.headers.get("If-Match", "").strip('"')
        if said and said != str(current):
            raise refused(status, f"the version is {current}, not {said}")
        return bool(said)

    def answer_with(self, request: FakeRequest, value: Any) -> Any:
        """*value* with URLs that lead here."""
        return _absolute(value, f"{request.root}/{request.args['v']}")

    def body_of(self, request: FakeRequest) -> dict[str, Any]:
        """The JSON object that was sent; 422 for any other JSON, and for values of other kinds."""
        found = request.json
        if not isinstance(found, dict):
            raise refused(422, "the body is no JSON object")
        for name, (kind, said) in _KINDS.items():
            value: Any = found.get(name)
            fits = value is None or isinstance(value, kind)
            if fits and name in _OF_TEXTS and isinstance(value, list):
                fits = all(isinstance(one, str) for one in value)
            if not fits:
                raise refused(422, **{name: said})
        return found

    @property
    def me(self) -> dict[str, Any]:
        return self.state.tables["users"][self.state.me]

    def reference_to(self, table: str, name: Any) -> dict[str, Any]:
        """What other objects say of an entry, or of an issue."""
        return self._reference(table, self.entry(table, name, status=400))

    def _reference(self, table: str, entry: Mapping[str, Any]) -> dict[str, Any]:
        found = {"self": entry["self"], "id": entry["id"]}
        if "key" in entry:
            found["key"] = entry["key"]
        display = entry.get("summary" if table == "issues" else "display") or entry.get("name")
        return {**found, "display": display or ""}

    def _add(self, table: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        number = str(len(self.state.tables[table]) + 1)
        entry = {
            "self": f"/{table}/{fields['key'] if table == 'queues' else number}",
            "id": number,
            "version": 1,
            "display": fields["name"],
            **fields,
        }
        self.state.tables[table][number] = entry
        return entry

    def _keyed(self, queue: str) -> dict[str, str]:
        key = f"{queue}-{self.state.next_id(f'issues of {queue}')}"
        return {"key": key, "self": f"/issues/{key}"}

    def _changed(self, issue: Issue, name: str, value: Any) -> Any:
        if name == "status":
            raise refused(400, status="it changes by transitions only")
        if name in _READ_ONLY or name == "queue":
            raise refused(400, **{name: "it cannot be changed"})
        if name not in self.state.tables["fields"] and "--" not in name and self.strict:
            raise refused(400, **{name: "no such field; see add_field() of the fake"})
        return changed(name, issue.get(name), value, self._resolved, many=self._is_list(name))

    def _is_list(self, name: str) -> bool:
        known = self.state.tables["fields"].get(name, {})
        return name in LISTS or known.get("schema", {}).get("type") == "array"

    def _resolved(self, name: str, value: Any) -> Any:
        table = REFERENCES.get(name)
        if table is None:
            return value
        try:
            return self.reference_to(table, value)
        except Refusal as unknown:
            raise refused(400, **{name: unknown.message}) from None

    def _log(self, issue: Issue, kind: str, fields: list[dict[str, Any]]) -> None:
        entries = self.state.changelog.setdefault(issue["id"], [])
        number = f"{self.state.next_id('changelog'):024x}"
        entries.append(
            {
                "self": f"/issues/{issue['key']}/changelog/{number}",
                "id": number,
                "type": kind,
                "issue": self._reference("issues", issue),
                "updatedAt": timestamp(self.now),
                "updatedBy": self._reference("users", self.me),
                "fields": fields,
            }
        )


def _user(number: str, login: str, display: str) -> dict[str, Any]:
    return {
        "self": f"/users/{number}",
        "id": number,
        "uid": int(number),
        "login": login,
        "display": display,
        "email": f"{login}@example.com",
    }


def _absolute(value: Any, root: str) -> Any:
    if isinstance(value, dict):
        return {
            name: root + one
            if name in _URLS and isinstance(one, str) and one.startswith("/")
            else _absolute(one, root)
            if isinstance(one, dict | list)
            else one
            for name, one in value.items()
        }
    if isinstance(value, list):
        return [_absolute(one, root) for one in value]
    return value
