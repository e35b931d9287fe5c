"""Sandbox: resources, by the client against the fake, in-process and over HTTP."""

import io
import logging
import pickle
from pathlib import Path
from typing import Any

import pytest

from sepelib.core.config import ConfigError
from sepelib.util.testing import check_errors
from sepelib.yandex import sandbox
from sepelib.yandex.auth import OAuthToken
from sepelib.yandex.errors import (
    ApiConnectionError,
    BadRequest,
    BatchError,
    CredentialsUnavailable,
    DeadlineExceeded,
    Forbidden,
    NotFound,
)
from sepelib.yandex.sandbox import (
    PROXY,
    BatchItem,
    ChecksumMismatch,
    Resource,
    ResourceNotReady,
    SandboxClient,
    Task,
    token_from_env,
)
from sepelib.yandex.testing import FakeSandbox, sample

pytestmark = pytest.mark.yandex(transport="both")


def test_a_resource_is_read_with_its_links_or_without(
    fake_sandbox: FakeSandbox, sandbox_client: SandboxClient
) -> None:
    number = fake_sandbox.add_resource(b"abc", type="BUILD", links=2, attributes={"ttl": "3"})

    found = sandbox_client.resources.get(number)
    assert (found.id, found.type, found.state, found.is_ready) == (number, "BUILD", "READY", True)
    assert found.md5 == "900150983cd24fb0d6963f7d28e17f72" and found.attributes == {"ttl": "3"}
    assert found.proxy == f"{fake_sandbox.url}/proxy/{number}" and len(found.links) == 2
    assert sandbox_client.resources.links(number) == found.links
    assert sandbox_client.resources.get(number, links=False).links == ()
    assert "X-Touch-Resource" not in fake_sandbox.calls[0].headers
    with pytest.raises(NotFound, match="no resource 404"):
        sandbox_client.resources.get(404)


def test_a_resource_that_is_touched_lives_on(
    fake_sandbox: FakeSandbox, sandbox_client: SandboxClient
) -> None:
    kept, lost = (fake_sandbox.add_resource(attributes={"ttl": "2"}) for _ in range(2))
    eternal = fake_sandbox.add_resource()
    day = 86_400.0
    fake_sandbox.clock.advance(day)
    touched = sandbox_client.resources.touch(kept)
    assert touched.is_ready and touched.links == ()
    fake_sandbox.clock.advance(day)
    sandbox_client.resources.get(kept)  # no touch

    states = [sandbox_client.resources.get(n).state for n in (kept, lost, eternal)]
    assert states == ["READY", "DELETED", "READY"]
    fake_sandbox.clock.advance(day)
    assert not sandbox_client.resources.get(kept).is_ready
    sent = fake_sandbox.calls[0].headers
    assert (sent["X-Touch-Resource"], sent["X-No-Links"]) == ("1", "1")


def test_resources_are_listed_page_by_page(
    fake_sandbox: FakeSandbox, sandbox_client: SandboxClient
) -> None:
    wanted = {"ttl": "inf", "platform": "linux"}
    for number in range(150):
        attributes = wanted if number % 3 else {"ttl": "inf"}
        fake_sandbox.add_resource(type="BUILD", attributes=attributes)
    fake_sandbox.add_resource(type="BUILD", state="BROKEN")
    fake_sandbox.add_resource(owner="SEARCH")

    ready = sandbox_client.resources.list(type="BUILD", state="READY", order="-id")
    assert fake_sandbox.calls.ops == []
    assert [r.id for r in ready] == list(range(150, 0, -1)) and ready.total == 150
    assert [call.query["offset"] for call in fake_sandbox.calls] == ["0", "100"]
    linux = sandbox_client.resources.list(attrs={"platform": "linux"})
    assert len(list(linux)) == 100
    assert [r.owner for r in sandbox_client.resources.list(owner="SEARCH")] == ["SEARCH"]
    [newest] = sandbox_client.resources.list(order="-id", limit=1)
    assert newest.id == 152
    with pytest.raises(BadRequest, match="order by colour"):
        sandbox_client.resources.list(order="colour").first_page()


def test_reads_go_on_without_a_token_that_is_bad_and_say_so(
    fake_sandbox: FakeSandbox, sandbox_client: SandboxClient, caplog: pytest.LogCaptureFixture
) -> None:
    number = fake_sandbox.add_resource()
    fake_sandbox.tokens = {"another"}
    caplog.set_level(logging.WARNING)

    assert sandbox_client.resources.get(number).is_ready
    assert [r.id for r in sandbox_client.resources.list()] == [number]
    assert len(sandbox_client.resources.links(number)) == 1
    into = io.BytesIO()
    sandbox_client.resources.download(number, into)
    assert into.getvalue() == b"content"
    assert "Authorization" not in fake_sandbox.calls[-1].headers
    assert caplog.text.count("asked again without a token") == 5
    fake_sandbox.calls.assert_no_secret_in(caplog.text)
    with pytest.raises(Forbidden):
        sandbox_client.tasks.get(1)


def test_a_token_that_is_bad_is_an_error_where_nobody_may_read(
    fake_sandbox: FakeSandbox, sandbox_client: SandboxClient, yandex_fakes: Any
) -> None:
    number = fake_sandbox.add_resource()
    fake_sandbox.tokens = {"another"}
    strict = yandex_fakes.client("sandbox", anonymous_reads=False)
    with pytest.raises(Forbidden):
        strict.resources.get(number)
    assert len(fake_sandbox.calls) == 1

    fake_sandbox.public = False
    with pytest.raises(Forbidden) as caught:
        sandbox_client.resources.get(number)
    assert caught.value.attempts == 1 and len(fake_sandbox.calls) == 3


def test_the_total_time_is_for_both_reads(fake_sandbox: FakeSandbox, yandex_fakes: Any) -> None:
    number = fake_sandbox.add_resource()
    fake_sandbox.tokens = {"another"}
    fake_sandbox.faults.on("*", delay=0.6)
    client = yandex_fakes.client("sandbox", total_timeout=1.0)

    with pytest.raises(DeadlineExceeded):
        client.resources.get(number)


def test_without_a_token_resources_can_be_read(
    fake_sandbox: FakeSandbox, yandex_fakes: Any
) -> None:
    number = fake_sandbox.add_resource()
    client = yandex_fakes.client("sandbox", auth=None)

    assert client.resources.get(number).is_ready
    fake_sandbox.public = False
    with pytest.raises(Forbidden):
        client.resources.get(number)
    assert len(fake_sandbox.calls) == 2


def test_a_file_is_uploaded_once(
    fake_sandbox: FakeSandbox, sandbox_client: SandboxClient, tmp_path: Path
) -> None:
    file = tmp_path / "out.bin"
    file.write_bytes(b"\x00content")
    with file.open("rb") as source:
        made = sandbox_client.resources.upload(source, description="nightly")
    assert (made.file_name, made.type, made.attributes) == (
        "out.bin",
        "OTHER_RESOURCE",
        {"ttl": "14"},
    )
    assert fake_sandbox.state.contents[made.id or 0] == b"\x00content"
    kept = sandbox_client.resources.upload(
        io.BytesIO(b"x"), name="x.txt", type="BUILD", owner="SEARCH", ttl="inf"
    )
    assert (kept.owner, kept.attributes, kept.file_name) == ("SEARCH", {"ttl": "inf"}, "x.txt")

    with pytest.raises(ValueError, match="give owner="):
        sandbox_client.resources.upload(io.BytesIO(b"x"), ttl="inf")
    fake_sandbox.faults.on("resources.upload", reset="after-apply")
    with pytest.raises(ApiConnectionError) as caught:
        sandbox_client.resources.upload(io.BytesIO(b"x"))
    assert caught.value.maybe_applied and len(fake_sandbox.state.resources) == 3


def test_an_upload_that_was_refused_before_is_repeated_whole(
    fake_sandbox: FakeSandbox, sandbox_client: SandboxClient
) -> None:
    fake_sandbox.faults.next(status=429, headers={"Retry-After": "0"})

    made = sandbox_client.resources.upload(io.BytesIO(b"content"))

    assert fake_sandbox.state.contents == {made.id: b"content"}
    assert len(fake_sandbox.calls.retries) == 1


class _Watched(io.BytesIO):
    """Knows the largest piece that was asked of it."""

    largest = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.largest = max(self.largest, len(self.getvalue()) if size in (None, -1) else size or 0)
        return super().read(size)


def test_a_large_file_is_read_while_it_is_sent(
    fake_sandbox: FakeSandbox, sandbox_client: SandboxClient
) -> None:
    file = _Watched(b"head" + bytes(3_000_000))
    file.seek(4)

    made = sandbox_client.resources.upload(file)  # type: ignore[arg-type]

    assert fake_sandbox.state.contents == {made.id: bytes(3_000_000)}
    assert file.largest <= 1 << 20


@pytest.mark.parametrize("name", ["a b", "дамп", 'x"; name="type', "x\r\nX-Header: y", "../x"])
def test_a_hostile_name_of_a_file_is_no_header(
    fake_sandbox: FakeSandbox, sandbox_client: SandboxClient, name: str
) -> None:
    made = sandbox_client.resources.upload(io.BytesIO(b"content"), name=name)

    quoted = name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
    assert made.file_name == quoted and fake_sandbox.state.contents[made.id or 0] == b"content"


# Configuration.


def test_the_proxy_of_the_default_url_is_not_for_others() -> None:
    usual = SandboxClient()
    assert PROXY in {f"{scheme}://{host}" for scheme, host, _ in usual._origins}
    other = SandboxClient("https://sandbox.example/api/v2.0")
    assert {host for _, host, _ in other._origins} == {"sandbox.example"}
    for client in (usual, other):
        client.close()


def test_a_section_has_all_options() -> None:
    section = {
        "url": "https://sandbox.example/api/v1.0",
        "auth": {"type": "none"},
        "proxy": "https://proxy.example",
        "origin": "us",
        "anonymous_reads": False,
        "status_groups": {"SUCCESS": "succeeded"},
        "allowed_origins": ["http://storage.example:8080"],
    }
    with SandboxClient.from_config(section) as client:
        hosts = {host for _, host, _ in client._origins}
    assert hosts == {"sandbox.example", "proxy.example", "storage.example"}
    with pytest.raises(ConfigError, match=r"sandbox\.status_groups"):
        SandboxClient.from_config({"status_groups": ["x"]})
    with pytest.raises(ConfigError, match="unknown key prox"):
        SandboxClient.from_config({"prox": "x"})
    with pytest.raises(ValueError, match="'victory' is not a valid TaskGroup"):
        SandboxClient(status_groups={"SUCCESS": "victory"})


def test_the_token_is_where_the_tools_of_sandbox_look(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("of-a-file\n")
    for name in ("SANDBOX_TOKEN", "SANDBOX_TOKEN_PATH", "SANDBOX_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(CredentialsUnavailable, match="SANDBOX_TOKEN_PATH"):
        token_from_env()
    for name, value, token in (
        ("SANDBOX_SESSION_TOKEN", "of-a-task", "of-a-task"),
        ("SANDBOX_TOKEN_PATH", str(file), "of-a-file"),
        ("SANDBOX_TOKEN", "of-a-user", "of-a-user"),
    ):
        monkeypatch.setenv(name, value)
        headers: dict[str, str] = {}
        OAuthToken(token_from_env()).apply(headers)
        assert headers == {"Authorization": f"OAuth {token}"}


# What is known, and what is not.


def test_the_client_reads_what_sandbox_is_known_to_answer(
    fake_sandbox: FakeSandbox, sandbox_client: SandboxClient
) -> None:
    play = fake_sandbox.faults.play
    play(sample("sandbox", "later").reply)
    play(sample("sandbox", "resource").reply)
    found = sandbox_client.resources.get(4711)
    assert (found.id, found.task_id, found.owner) == (4711, 99, "SEARCH")
    assert found.proxy == f"{PROXY}/4711" and found.attributes["mds"] == "4711/app.tgz"
    assert found.links == ("http://host1.example:13578/4711/app.tgz",)
    assert found.skynet_id == "rbtorrent:5f3c" and not found.multifile and found.is_ready
    assert len(fake_sandbox.calls.retries) == 1
    play(sample("sandbox", "links").reply)
    assert len(sandbox_client.resources.links(4711)) == 2
    play(sample("sandbox", "bad token").reply)
    play(sample("sandbox", "resource").reply)
    assert sandbox_client.resources.get(4711).id == 4711
    assert "Authorization" not in fake_sandbox.calls[-1].headers


def test_a_resource_without_a_state_is_taken_for_deleted() -> None:
    assert Resource.from_dict({"id": 1}).state == "DELETED"
    assert not Resource.from_dict({}).is_ready


def test_its_errors_travel() -> None:
    check_errors(sandbox, examples=[ChecksumMismatch("no", expected="a", actual="b")])
    check_errors(examples=[ResourceNotReady("no", state="DELETED")])


@pytest.mark.parametrize("kind", [Resource, Task, BatchItem])
def test_records_take_whatever_comes(kind: Any) -> None:
    names = ("id", "state", "http", "task", "attributes", "multifile", "status", "ok", "message")
    for value in (None, 7, "text", [], [7], {}, {"links": 7, "proxy": []}, {"links": [7, {}]}):
        found = kind.from_dict(dict.fromkeys(names, value) | {"x": 1})
        assert found.raw["x"] == 1 and isinstance(repr(found), str)
    assert kind.from_dict("nothing").raw == {"value": "nothing"}


def test_no_secret_is_seen_anywhere(
    fake_sandbox: FakeSandbox, sandbox_client: SandboxClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    number = fake_sandbox.add_resource()
    token = fake_sandbox.token
    refusal = {"error": token, "message": f"OAuth {token}"}
    fake_sandbox.faults.on("*", status=403, json=refusal)
    seen = [repr(sandbox_client)]
    for call in (
        lambda: sandbox_client.resources.get(number),
        lambda: sandbox_client.resources.download(number, io.BytesIO()),
        lambda: sandbox_client.tasks.start(1),
        lambda: sandbox_client.run("BUILD"),
    ):
        with pytest.raises(Forbidden) as caught:
            call()
        error = caught.value
        seen.append(f"{error} {error!r} {error.__dict__} {pickle.dumps(error)!r}")
    fake_sandbox.faults.clear()
    items = [{"id": 1, "ok": False, "message": f"OAuth {token}"}]
    fake_sandbox.faults.on("tasks.batch", json={"items": items})
    with pytest.raises(BatchError) as failed:
        sandbox_client.tasks.start(1)
    seen.append(f"{failed.value} {failed.value.__dict__} {pickle.dumps(failed.value)!r}")
    assert token not in "".join(seen)
    fake_sandbox.calls.assert_no_secret_in(caplog.text)
