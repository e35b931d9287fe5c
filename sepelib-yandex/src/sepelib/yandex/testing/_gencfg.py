"""A fake of GenCfg."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from ._request import FakeRequest, Refusal, Reply
from ._routes import route
from ._service import FakeService

__all__ = ["FakeGencfg", "GencfgState"]

HEAD = "head"

Groups = dict[str, dict[str, Any]]


@dataclass
class GencfgState:
    """Groups by revision. A group is a JSON object with its name and its instances."""

    revisions: dict[str, Groups] = field(default_factory=lambda: {HEAD: {}})
    version: int = 1
    """Of the head; its ETag."""


class FakeGencfg(FakeService[GencfgState]):
    """The head changes by `add_group`; `release` makes a tag of it, which stays as it is."""

    service = "gencfg"

    def new_state(self) -> GencfgState:
        return GencfgState()

    def config(self) -> dict[str, Any]:
        return {"url": self.url}

    # What a test says.

    def add_group(
        self, name: str, *hosts: str, port: int = 8080, **fields: Any
    ) -> list[dict[str, Any]]:
        """Put a group of one instance per host into the head, instead of one of that name."""
        instances = [{"hostname": host, "port": port} for host in hosts]
        self.state.revisions[HEAD][name] = {"name": name, **fields, "instances": instances}
        self.state.version += 1
        return instances

    def release(self, tag: str) -> str:
        """Make a tag of the head; the revision for a client."""
        revision = f"tags/{tag}"
        if revision in self.state.revisions:
            raise ValueError(f"the tag {tag} is there already, and never changes")
        self.state.revisions[revision] = copy.deepcopy(self.state.revisions[HEAD])
        return revision

    @route("GET", "/{rev:path}/searcherlookup/groups/{group}/instances", op="instances", auth=False)
    def _instances(self, request: FakeRequest) -> object:
        return self._versioned(request, {"instances": self._group(request)["instances"]})

    @route("GET", "/{rev:path}/groups", op="groups", auth=False)
    def _groups(self, request: FakeRequest) -> object:
        return self._versioned(request, {"groups": list(self._revision(request))})

    @route("GET", "/{rev:path}/groups/{group}", op="group", auth=False)
    def _one(self, request: FakeRequest) -> object:
        group = self._group(request)
        return self._versioned(
            request, {name: value for name, value in group.items() if name != "instances"}
        )

    @route("GET", "/tags", op="tags", auth=False)
    def _tags(self, request: FakeRequest) -> object:
        names = [revision.removeprefix("tags/") for revision in self.state.revisions]
        return {"tags": [name for name in names if name != HEAD]}

    def _revision(self, request: FakeRequest) -> Groups:
        if request.args["rev"] not in self.state.revisions:
            raise Refusal(404, "unknown_revision", f"no revision {request.args['rev']}")
        return self.state.revisions[request.args["rev"]]

    def _group(self, request: FakeRequest) -> dict[str, Any]:
        groups = self._revision(request)
        if request.args["group"] not in groups:
            raise Refusal(404, "unknown_group", f"no group {request.args['group']}")
        return groups[request.args["group"]]

    def _versioned(self, request: FakeRequest, answer: object) -> Reply:
        """The head has an ETag; a tag needs none."""
        if request.args["rev"] != HEAD:
            return Reply(json=answer)
        etag = {"ETag": f'"{self.state.version}"'}
        if request.headers.get("If-None-Match") == etag["ETag"]:
            return Reply(304, headers=etag)
        return Reply(json=answer, headers=etag)
