"""Issues of the fake tracker, their search and their ways."""

from __future__ import annotations

from typing import Any

from ._request import FakeRequest, Refusal, Reply
from ._routes import route
from ._startrek_base import StartrekBase
from ._startrek_search import by_order, links, matches, number, paged
from ._startrek_state import REFERENCES, Issue, Scroll, Way, refused

__all__ = ["IssueRoutes"]

_ALWAYS = ("self", "id", "key", "version")
_QUESTIONS = ("queue", "keys", "filter", "query")
_LOOKS = ("expand", "fields", "localized", "_pyClient*")
_SCROLL = ("scrollType", "perScroll", "scrollTTLMillis", "scrollId")
_LARGEST_SCROLL = 1000


class IssueRoutes(StartrekBase):
    @route("GET", "/{v}/issues/{issue}", op="issues.get", query=_LOOKS)
    def _get_issue(self, request: FakeRequest) -> object:
        return self._shown(request, [self.issue(request.args["issue"])])[0]

    @route("POST", "/{v}/issues", op="issues.create", query=_LOOKS, body="json")
    def _create_issue(self, request: FakeRequest) -> object:
        body = self.body_of(request)
        missing = [name for name in ("summary", "queue") if not body.get(name)]
        if missing:
            raise refused(422, **dict.fromkeys(missing, "required"))
        unique = body.get("unique")
        if unique is not None and unique in self.state.unique:
            raise refused(409, "an issue with this unique exists already")
        issue = self.created(body)
        automation = self.state.automation.get(issue["queue"]["key"])
        if automation is not None:
            self.edited(issue, automation)
        return Reply(201, json=self._shown(request, [issue])[0])

    @route(
        "PATCH",
        "/{v}/issues/{issue}",
        op="issues.update",
        query=("version", *_LOOKS),
        body="json",
    )
    def _update_issue(self, request: FakeRequest) -> object:
        issue = self.issue(request.args["issue"])
        body = self.body_of(request)
        self.check_version(request, issue["version"])
        return self._shown(request, [self.edited(issue, body)])[0]

    @route("POST", "/{v}/issues/_findByUnique", op="issues.by_unique", query=("unique",))
    def _by_unique(self, request: FakeRequest) -> object:
        found = self.state.unique.get(request.query.get("unique", ""))
        if found is None:
            raise refused(404, "no issue with this unique")
        return self.answer_with(request, self.state.issues[found])

    @route(
        "POST",
        "/{v}/issues/_search",
        op="issues.search",
        query=("perPage", "page", *_SCROLL, *_LOOKS),
        body="json",
    )
    def _search(self, request: FakeRequest) -> object:
        if "scrollId" in request.query:
            scroll = self.state.scrolls.get(request.query["scrollId"])
            if scroll is None:
                raise refused(404, "no such scroll, or its time is over")
            return self._turned(request, request.query["scrollId"], scroll)
        body = self._question(request, _QUESTIONS)
        if "scrollType" in request.query:
            return self._opened(request, body)
        rows, headers = paged(request, self._found(body), cap=self.search_cap)
        return Reply(json=self._shown(request, rows), headers=headers)

    @route("POST", "/{v}/issues/_count", op="issues.count", body="json")
    def _count(self, request: FakeRequest) -> object:
        return len(self._found(self._question(request, ("filter", "query"))))

    @route("POST", "/{v}/system/search/scroll/_clear", op="issues.scroll_clear", body="json")
    def _clear(self, request: FakeRequest) -> object:
        for name, token in self.body_of(request).items():
            scroll = self.state.scrolls.get(name)
            if scroll is not None and scroll.token != token:
                raise refused(400, "the token is of another scroll")
            self.state.scrolls.pop(name, None)
        return Reply()

    @route(
        "POST",
        "/{v}/issues/{issue}/_move",
        op="issues.move",
        query=("queue", "notify", "notifyAuthor", "moveAllFields", "initialStatus", "expand"),
    )
    def _move(self, request: FakeRequest) -> object:
        if "queue" not in request.query:
            raise refused(400, queue="required")
        issue = self.moved(
            self.issue(request.args["issue"]),
            request.query["queue"],
            all_fields=request.query.get("moveAllFields") == "true",
            initial=request.query.get("initialStatus") == "true",
        )
        return self._shown(request, [issue])[0]

    @route(
        "POST",
        "/{v}/issues/{issue}/_clone",
        op="issues.clone",
        query=("queues", "cloneAllFields", "linkWithOriginal"),
    )
    def _clone(self, request: FakeRequest) -> object:
        issue = self.issue(request.args["issue"])
        names = ["summary", "description"]
        if request.query.get("cloneAllFields", "").lower() == "true":
            names += ["type", "priority", "assignee", "tags", "components"]
        fields = {name: issue[name] for name in names if name in issue}
        queues = request.values("queues")
        copies = [self.created({**fields, "queue": queue}) for queue in queues]
        if request.query.get("linkWithOriginal", "").lower() == "true":
            for copy in copies:
                self.link(issue, "relates", copy)
        return self.answer_with(request, copies)

    @route("GET", "/{v}/issues/{issue}/transitions", op="issues.transitions", query=_LOOKS)
    def _transitions(self, request: FakeRequest) -> object:
        issue = self.issue(request.args["issue"])
        return self.answer_with(request, self._ways(issue))

    @route("GET", "/{v}/issues/{issue}/transitions/{way}", op="issues.transition")
    def _transition(self, request: FakeRequest) -> object:
        issue = self.issue(request.args["issue"])
        return self.answer_with(
            request, self._way_shown(issue, self._way(issue, request.args["way"]))
        )

    @route(
        "POST",
        "/{v}/issues/{issue}/transitions/{way}/_execute",
        op="issues.execute",
        body="json",
    )
    def _execute(self, request: FakeRequest) -> object:
        issue = self.issue(request.args["issue"])
        after = self.taken(issue, request.args["way"], self.body_of(request))
        return self.answer_with(request, self._ways(after))

    @route(
        "GET",
        "/{v}/issues/{issue}/changelog",
        op="issues.changelog",
        query=("id", "perPage", "field", "type"),
    )
    def _changelog(self, request: FakeRequest) -> object:
        issue = self.issue(request.args["issue"])
        rows = self.state.changelog[issue["id"]]
        asked = request.query
        if "type" in asked:
            rows = [one for one in rows if one["type"] == asked["type"]]
        if "field" in asked:
            of = {"id": asked["field"]}
            rows = [one for one in rows if any(part["field"] == of for part in one["fields"])]
        size = number(request, "perPage", 50)
        # The cursor is none of the ids of the entries, though it is called id.
        kind, _, start = asked.get("id", "from-0").partition("-")
        if kind != "from" or not start.isdigit():
            raise refused(400, id="not a cursor that this has given")
        page = rows[int(start) : int(start) + size]
        after = int(start) + size
        related = {"next": {"id": f"from-{after}"}} if after < len(rows) else {}
        headers = links(request, related, {"perPage": size})
        return Reply(json=self.answer_with(request, page), headers=headers)

    # For bulk changes too.

    def taken(self, issue: Issue, name: str, body: dict[str, Any]) -> Issue:
        """The issue after its transition *name*, with *body* on the screen."""
        way = self._way(issue, name)
        fields = {name: value for name, value in body.items() if name != "comment"}
        strange = [name for name in fields if name not in (*way.fields, "resolution")]
        if strange:
            raise refused(400, **dict.fromkeys(strange, "not on the screen of the transition"))
        missing = [name for name in way.required if not fields.get(name, issue.get(name))]
        if missing:
            raise refused(422, **dict.fromkeys(missing, "required"))
        own: dict[str, Any] = {
            "status": self.reference_to("statuses", way.target),
            "previousStatus": issue["status"],
            **dict.fromkeys(way.resets),
        }
        after = self.edited(issue, fields, own=own, kind="IssueWorkflow")
        if body.get("comment"):
            self.comment(after, {"text": body["comment"]})
        return after

    def comment(self, issue: Issue, body: dict[str, Any]) -> dict[str, Any]:
        """A new comment."""
        raise NotImplementedError

    def link(self, issue: Issue, relationship: str, other: Issue) -> dict[str, Any]:
        """A new link, seen from both sides."""
        raise NotImplementedError

    def _ways(self, issue: Issue) -> list[dict[str, Any]]:
        status = issue["status"]["key"]
        return [
            self._way_shown(issue, way)
            for way in self.state.workflow
            if not way.source or status in way.source
        ]

    def _way(self, issue: Issue, name: str) -> Way:
        status = issue["status"]["key"]
        for way in self.state.workflow:
            if way.id == name and (not way.source or status in way.source):
                return way
        raise refused(404, f"no transition {name} from {status}")

    def _way_shown(self, issue: Issue, way: Way) -> dict[str, Any]:
        shown = {
            "self": f"/issues/{issue['key']}/transitions/{way.id}",
            "id": way.id,
            "display": way.display,
            "to": self.reference_to("statuses", way.target),
        }
        if way.fields:
            shown["screen"] = {
                "self": f"/screens/{way.id}",
                "id": way.id,
                "display": way.display,
            }
        return shown

    def _question(self, request: FakeRequest, known: tuple[str, ...]) -> dict[str, Any]:
        body = {k: v for k, v in self.body_of(request).items() if v is not None}
        strange = [name for name in body if name not in (*known, "order")]
        if strange:
            raise refused(400, **dict.fromkeys(strange, "unknown"))
        asked = [name for name in known if name in body]
        if len(asked) != 1:
            raise refused(400, f"one of {', '.join(known)} is needed, not {len(asked)}")
        if body.get("order") and "filter" not in body:
            raise refused(400, order="goes with filter only")
        return body

    def _found(self, body: dict[str, Any]) -> list[Issue]:
        issues = list(self.state.issues.values())
        if "queue" in body:
            return [one for one in issues if one["queue"]["key"] == body["queue"]]
        if "keys" in body:
            keys = body["keys"] if isinstance(body["keys"], list) else [body["keys"]]
            ids = {self.state.keys.get(key, key) for key in keys}
            return [one for one in issues if one["id"] in ids]
        if "query" in body:
            predicate = self.state.queries.get(body["query"])
            if predicate is None:
                raise refused(400, query="not understood; see add_query() of the fake")
            return [one for one in issues if predicate(one)]
        asked = body["filter"]
        strange = [n for n in asked if n not in self.state.tables["fields"] and "--" not in n]
        if strange:
            raise refused(400, **dict.fromkeys(strange, "no such field"))
        wanted = {
            name: [self._wanted(name, one) for one in (some if isinstance(some, list) else [some])]
            for name, some in asked.items()
        }
        found = [one for one in issues if matches(one, wanted)]
        order = body.get("order") or []
        return by_order(found, [order] if isinstance(order, str) else order)

    def _wanted(self, name: str, value: Any) -> Any:
        """An id in place of a login, a key, an object or me(), where such is known."""
        table = REFERENCES.get(name)
        if table is None or value == "Empty()":
            return value
        if table == "users" and value == "me()":
            return self.state.me
        try:
            return self.entry(table, value)["id"]
        except Refusal:
            return value

    def _opened(self, request: FakeRequest, body: dict[str, Any]) -> Reply:
        if not {"keys", "queue"}.isdisjoint(body):
            raise refused(400, "Scroll is not supported")
        if request.query["scrollType"] not in ("sorted", "unsorted"):
            raise refused(400, scrollType="sorted or unsorted")
        size = number(request, "perScroll", 100, most=_LARGEST_SCROLL)
        ttl = number(request, "scrollTTLMillis", 60_000) / 1000
        name = f"scroll-{self.state.next_id('scrolls')}"
        scroll = Scroll(self._found(body), f"token-of-{name}", size, ttl, 0.0)
        self.state.scrolls[name] = scroll
        return self._turned(request, name, scroll)

    def _turned(self, request: FakeRequest, name: str, scroll: Scroll) -> Reply:
        rows = scroll.rows[scroll.at : scroll.at + scroll.size]
        scroll.at += scroll.size
        scroll.expires = self.clock.now + scroll.ttl
        headers = []
        if scroll.at < len(scroll.rows):
            headers = [("X-Scroll-Id", name), ("X-Scroll-Token", scroll.token)]
            headers += links(request, {"next": {"scrollId": name}}, {})
        elif scroll.at == scroll.size:
            del self.state.scrolls[name]  # all of it was one page; nobody has its id
        return Reply(json=self._shown(request, rows), headers=headers)

    def _shown(self, request: FakeRequest, issues: list[Issue]) -> list[dict[str, Any]]:
        """With `expand` and `fields`."""
        expand = request.query.get("expand", "").split(",")
        fields = [name for name in request.query.get("fields", "").split(",") if name]
        shown = []
        for issue in issues:
            one = dict(issue)
            if fields:
                one = {k: v for k, v in one.items() if k in _ALWAYS or k in fields}
            if "transitions" in expand:
                one["transitions"] = self._ways(issue)
            if "attachments" in expand:
                files = self.state.files.values()
                one["attachments"] = [f.answer for f in files if f.issue == issue["id"]]
            shown.append(one)
        found: list[dict[str, Any]] = self.answer_with(request, shown)
        return found
