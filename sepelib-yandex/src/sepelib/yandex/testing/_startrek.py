"""A fake of the tracker: issues and all that hangs on them, bulk changes, dictionaries."""

from __future__ import annotations

from typing import Any

from ._request import FakeRequest, Refusal, Reply
from ._routes import Route, route
from ._startrek_around import AroundRoutes
from ._startrek_search import paged
from ._startrek_state import Bulk, refused, timestamp

__all__ = ["FakeStartrek"]

_DICTIONARIES = ("statuses", "priorities", "resolutions", "issuetypes", "fields", "worklog")
_OPS = {"issuetypes": "issue_types"}


class FakeStartrek(AroundRoutes):
    """The tracker, with a user, the usual dictionaries, a workflow, and no queue at first.

        fake.add_queue("TEST")
        fake.add_issue("TEST", summary="Disk is full", assignee="robot")
        fake.add_query("Queue: TEST", lambda issue: issue["queue"]["key"] == "TEST")
        fake.state.issues, fake.state.files, fake.state.scrolls

    *org_id*, *cloud_org_id*: the organization that a caller must name, else 403.
    *myself_as_list*: in which of its two shapes `myself` answers. *search_cap*: rows that the
    paged search has. *bulk_hidden*: how often a new bulk change is not found, and after that
    *bulk_polls*: how often it is CREATED; then it is applied, and COMPLETE or FAILED.
    *attachment_limit*: bytes.

    Its workflow: open -start-> inProgress -close-> closed -reopen-> open, close from open as well,
    with a screen on which a resolution is required. Issues in a scroll are as they were.
    """

    def extra_routes(self) -> list[Route]:
        """The dictionaries."""
        known = ("perPage", "page", "localized", "_pyClient*")
        found = []
        for table in _DICTIONARIES:
            op = f"dictionaries.{_OPS.get(table, table)}"
            path = f"/{{v}}/{table}"
            found.append(Route("GET", path, op, known, None, True, {}, _listing(table)))
            path += "/{entry}"
            found.append(Route("GET", path, f"{op}.get", known, None, True, {}, _reading(table)))
        for table, op in (
            ("users", "dictionaries.user"),
            ("versions", "dictionaries.version"),
            ("components", "dictionaries.component"),
            ("queues", "queues.get"),
        ):
            path = f"/{{v}}/{table}/{{entry}}"
            query = (*known, "expand")
            found.append(Route("GET", path, op, query, None, True, {}, _reading(table)))
        return found

    @route("GET", "/{v}/myself", op="myself")
    def _myself(self, request: FakeRequest) -> object:
        me = self.answer_with(request, self.me)
        return [me] if self.myself_as_list else me

    @route("GET", "/{v}/queues", op="queues.list", query=("expand", "perPage", "page"))
    def _queues(self, request: FakeRequest) -> object:
        rows, headers = paged(request, list(self.state.tables["queues"].values()))
        return Reply(json=self.answer_with(request, rows), headers=headers)

    @route("GET", "/{v}/queues/{queue}/versions", op="queues.versions")
    def _queue_versions(self, request: FakeRequest) -> object:
        return self._of_queue(request, "versions")

    @route("GET", "/{v}/queues/{queue}/components", op="queues.components")
    def _queue_components(self, request: FakeRequest) -> object:
        return self._of_queue(request, "components")

    @route("POST", "/{v}/versions/{entry}/_archive", op="dictionaries.archive_version")
    def _archive(self, request: FakeRequest) -> object:
        if request.body:
            raise refused(400, "no body is taken, not even an empty object")
        version = self.entry("versions", request.args["entry"])
        version |= {"archived": True, "version": version["version"] + 1}
        return self.answer_with(request, version)

    @route(
        "PATCH",
        "/{v}/components/{entry}",
        op="dictionaries.update_component",
        query=("version",),
        body="json",
    )
    def _update_component(self, request: FakeRequest) -> object:
        component = self.entry("components", request.args["entry"])
        if not self.check_version(request, component["version"], status=412):
            raise refused(428, "the version that is edited is needed")
        body = self.body_of(request)
        strange = body.keys() - {"name", "description", "lead", "archived", "assignAuto"}
        if strange:
            raise refused(400, **dict.fromkeys(sorted(strange), "unknown"))
        component |= {**body, "version": component["version"] + 1}
        return self.answer_with(request, component)

    @route("POST", "/{v}/bulkchange/_update", op="bulk.update", query=("notify",), body="json")
    @route(
        "POST", "/{v}/bulkchange/_transition", op="bulk.transition", query=("notify",), body="json"
    )
    @route("POST", "/{v}/bulkchange/_move", op="bulk.move", query=("notify",), body="json")
    def _start_bulk(self, request: FakeRequest) -> object:
        body = self.body_of(request)
        needed = {"bulk.update": "values", "bulk.transition": "transition", "bulk.move": "queue"}
        wanted = ("issues", needed[request.op])
        missing = [name for name in wanted if not body.get(name)]
        if missing:
            raise refused(422, **dict.fromkeys(missing, "required"))
        number = f"{self.state.next_id('bulk'):024x}"
        answer = {
            "self": f"/bulkchange/{number}",
            "id": number,
            "createdAt": timestamp(self.now),
            "status": "CREATED",
            "statusText": "Created",
            "executionChunkPercent": 0,
            "executionIssuePercent": 0,
        }
        self.state.bulk[number] = Bulk(answer, request.op, body)
        return Reply(201, json=self.answer_with(request, answer))

    @route("GET", "/{v}/bulkchange/{change}", op="bulk.get")
    def _get_bulk(self, request: FakeRequest) -> object:
        bulk = self.state.bulk.get(request.args["change"])
        if bulk is not None:
            bulk.polls += 1
        if bulk is None or bulk.polls <= self.bulk_hidden:
            raise refused(404, f"no bulk change {request.args['change']}")
        if bulk.polls > self.bulk_hidden + self.bulk_polls:
            self.finish_bulk(bulk.answer["id"])
        return self.answer_with(request, bulk.answer)

    def finish_bulk(self, number: str) -> None:
        """Apply a bulk change now; FAILED if one of its issues refuses. Not twice."""
        bulk = self.state.bulk[number]
        if bulk.answer["status"] != "CREATED":
            return
        refusals = []
        for one in bulk.body["issues"]:
            try:
                self._change_one(bulk, one)
            except Refusal as refusal:
                why = refusal.message or "; ".join(f"{k}: {v}" for k, v in refusal.details.items())
                refusals.append(f"{one}: {why}")
        bulk.answer |= {
            "status": "FAILED" if refusals else "COMPLETE",
            "statusText": "; ".join(refusals) or "Complete",
            "executionChunkPercent": 100,
            "executionIssuePercent": 100,
        }

    def _change_one(self, bulk: Bulk, name: Any) -> None:
        issue, body = self.entry("issues", name), bulk.body
        if bulk.kind == "bulk.update":
            self.edited(issue, body["values"])
        elif bulk.kind == "bulk.transition":
            self.taken(issue, body["transition"], body.get("values") or {})
        else:
            self.moved(
                issue,
                body["queue"],
                all_fields=bool(body.get("moveAllFields")),
                initial=bool(body.get("initialStatus")),
            )

    def _of_queue(self, request: FakeRequest, table: str) -> object:
        key = self.entry("queues", request.args["queue"])["key"]
        entries = self.state.tables[table].values()
        return self.answer_with(request, [one for one in entries if one["queue"]["key"] == key])


def _listing(table: str) -> Any:
    def listed(fake: FakeStartrek, request: FakeRequest) -> object:
        return fake.answer_with(request, list(fake.state.tables[table].values()))

    return listed


def _reading(table: str) -> Any:
    def read(fake: FakeStartrek, request: FakeRequest) -> object:
        return fake.answer_with(request, fake.entry(table, request.args["entry"]))

    return read
