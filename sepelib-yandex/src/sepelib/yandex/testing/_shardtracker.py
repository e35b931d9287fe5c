"""A fake of shardtracker."""

from __future__ import annotations

from ._crud import CrudFake
from ._operations import Insert, Item, Table, page
from ._request import FakeRequest, Refusal
from ._routes import route

__all__ = ["FakeShardtracker"]

_MOST = 1000  # names in one lookup


class FakeShardtracker(CrudFake):
    """Shards on hosts; one that is registered is ready."""

    service = "shardtracker"
    tables = (Table("places", key=("shard", "host"), changed="updated_at"),)
    operations = (
        Insert(
            "register",
            "/v1/shards/{shard}/register",
            "places",
            required=("host", "path"),
            defaults={"state": "ready"},
            status=200,
        ),
    )

    def add_place(self, shard: str, host: str, state: str = "ready") -> None:
        """Let *host* have *shard*, in that state."""
        self.add("places", {"shard": shard, "host": host, "state": state})

    @route("GET", "/v1/shards", op="shards", query=("prefix", "limit", "offset"))
    def _shards(self, request: FakeRequest) -> object:
        names = dict.fromkeys(place["shard"] for place in self.all("places"))
        wanted = request.query.get("prefix", "")
        return page([{"shard": name} for name in names if name.startswith(wanted)], request)

    @route("GET", "/v1/shards/{shard}/hosts", op="hosts")
    def _hosts(self, request: FakeRequest) -> object:
        shard = request.args["shard"]
        places = self._places("shard", shard)
        if not places:
            raise Refusal(404, "not_found", f"no shard {shard}")
        shown = ("host", "state", "updated_at")
        return {"shard": shard, "hosts": [{key: place[key] for key in shown} for place in places]}

    @route("GET", "/v1/hosts/{host}/shards", op="shards_of")
    def _shards_of(self, request: FakeRequest) -> object:
        places = self._places("host", request.args["host"])
        return [{"shard": place["shard"], "state": place["state"]} for place in places]

    @route("POST", "/v1/lookup", op="lookup", body="json")
    def _lookup(self, request: FakeRequest) -> object:
        shards = request.json.get("shards") if isinstance(request.json, dict) else None
        if (
            not isinstance(shards, list)
            or len(shards) > _MOST
            or not all(isinstance(name, str) for name in shards)
        ):
            raise Refusal(400, "bad_field", f"shards is no list of at most {_MOST} names")
        return {name: [one["host"] for one in self._places("shard", name)] for name in shards}

    def _places(self, field: str, value: str) -> list[Item]:
        return [place for place in self.all("places") if place[field] == value]
