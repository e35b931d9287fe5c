"""A fake of auth.qe."""

from __future__ import annotations

from ._crud import CrudFake
from ._operations import Table
from ._request import FakeRequest, Refusal
from ._routes import route

__all__ = ["FakeAuthQe"]


class FakeAuthQe(CrudFake):
    """Users and their roles in projects."""

    service = "auth_qe"
    tables = (Table("users", key=("login",)),)

    def grant(self, login: str, project: str, *roles: str) -> None:
        """Let a user, known from now on, have these roles besides those it has."""
        user = self.get("users", login) or self.need("users", self.add("users", {"login": login}))
        granted = user.setdefault("roles", {}).setdefault(project, [])
        granted += [role for role in roles if role not in granted]

    def revoke(self, login: str, project: str, *roles: str) -> None:
        """Take these roles from a user, none named: all in *project*."""
        granted = self._roles(login, project)
        granted[:] = [role for role in granted if roles and role not in roles]

    @route("GET", "/v1/users/{login}/roles", op="roles", query=("project",))
    def _get_roles(self, request: FakeRequest) -> object:
        login, project = request.args["login"], _needed(request, "project")
        return {"login": login, "project": project, "roles": self._roles(login, project)}

    @route("GET", "/v1/check", op="allowed", query=("login", "project", "role"))
    def _get_check(self, request: FakeRequest) -> object:
        login, project, role = (_needed(request, name) for name in ("login", "project", "role"))
        return {"allowed": role in self._roles(login, project)}

    @route("GET", "/v1/projects/{project}/roles/{role}/users", op="users")
    def _get_users(self, request: FakeRequest) -> object:
        project, role = request.args["project"], request.args["role"]
        users = [user["login"] for user in self.all("users")]
        return {"users": [login for login in users if role in self._roles(login, project)]}

    def _roles(self, login: str, project: str) -> list[str]:
        roles: list[str] = self.need("users", login).get("roles", {}).get(project, [])
        return roles


def _needed(request: FakeRequest, name: str) -> str:
    if not request.query.get(name):
        raise Refusal(400, "missing_parameter", f"{name} is missing", details={"field": name})
    return request.query[name]
