"""Downloads from Sandbox: which source, how often, and nothing but the right bytes."""

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from sepelib.util.retry import Backoff, RetryPolicy
from sepelib.yandex.errors import (
    ApiConnectionError,
    ApiProtocolError,
    DeadlineExceeded,
    ForeignLink,
    NotFound,
    ServerError,
    YandexError,
)
from sepelib.yandex.sandbox import ChecksumMismatch, ResourceNotReady, SandboxClient
from sepelib.yandex.testing import FakeSandbox

pytestmark = pytest.mark.yandex(transport="both")

DATA = bytes(range(256)) * 2000


@pytest.fixture
def client(yandex_fakes: Any) -> SandboxClient:
    """One that does not wait between two tries."""
    policy = RetryPolicy(YandexError, backoff=Backoff(0.0, cap=0.0))
    made: SandboxClient = yandex_fakes.client("sandbox", retry=policy, origin="us")
    return made


def tries(fake: FakeSandbox) -> list[str]:
    """Where the bytes were asked for, in order."""
    names = {"resources.data": "proxy", "resources.link": "link", "resources.links": "links"}
    return [names[op] for op in fake.calls.ops if op in names]


def test_a_resource_is_streamed_into_a_file_and_checked(
    fake_sandbox: FakeSandbox, client: SandboxClient, tmp_path: Path
) -> None:
    number = fake_sandbox.add_resource(DATA)
    path = tmp_path / "app.tgz"
    path.write_bytes(b"of yesterday")

    found = client.resources.download(number, path)

    assert path.read_bytes() == DATA and found.id == number
    assert list(tmp_path.iterdir()) == [path]
    assert tries(fake_sandbox) == ["proxy"]
    assert fake_sandbox.calls[0].headers["X-No-Links"] == "1"
    assert fake_sandbox.calls[-1].query == {"origin": "us"}
    assert fake_sandbox.calls[-1].token == fake_sandbox.token


def test_the_order_is_proxy_twice_each_link_once_and_the_proxy_again(
    fake_sandbox: FakeSandbox, client: SandboxClient, tmp_path: Path
) -> None:
    number = fake_sandbox.add_resource(DATA, links=2)
    fake_sandbox.faults.on("resources.data", status=503)
    fake_sandbox.faults.on("resources.link", status=404)

    with pytest.raises(ServerError) as caught:
        client.resources.download(number, tmp_path / "x")

    assert tries(fake_sandbox) == ["proxy", "proxy", "links", "link", "link", "proxy"]
    assert caught.value.attempts == 5 and caught.value.op == "resources.data"
    hosts = [call.path.split("/")[-2] for call in fake_sandbox.calls.of("resources.link")]
    assert hosts == ["host1", "host2"] and list(tmp_path.iterdir()) == []
    assert all(call.token is None for call in fake_sandbox.calls.of("resources.link"))


def test_corrupt_bytes_are_refused_and_another_source_is_asked(
    fake_sandbox: FakeSandbox, client: SandboxClient, tmp_path: Path
) -> None:
    number = fake_sandbox.add_resource(DATA)
    fake_sandbox.corrupt(number, times=2)

    client.resources.download(number, tmp_path / "x")

    assert (tmp_path / "x").read_bytes() == DATA
    assert tries(fake_sandbox) == ["proxy", "proxy", "links", "link"]


def test_corrupt_bytes_everywhere_leave_the_old_file(
    fake_sandbox: FakeSandbox, client: SandboxClient, tmp_path: Path
) -> None:
    number = fake_sandbox.add_resource(DATA)
    fake_sandbox.corrupt(number)
    fake_sandbox.corrupt(number, source="link")
    path = tmp_path / "x"
    path.write_bytes(b"of yesterday")

    with pytest.raises(ChecksumMismatch) as caught:
        client.resources.download(number, path)

    assert path.read_bytes() == b"of yesterday" and list(tmp_path.iterdir()) == [path]
    resource = fake_sandbox.state.resources[number]
    assert caught.value.expected == resource["md5"] != caught.value.actual
    assert caught.value.actual in str(caught.value) and caught.value.attempts == 4


def test_without_the_check_any_bytes_do(
    fake_sandbox: FakeSandbox, client: SandboxClient, tmp_path: Path
) -> None:
    number = fake_sandbox.add_resource(DATA, md5=None)
    fake_sandbox.corrupt(number)
    with pytest.raises(ApiProtocolError, match="has no md5; verify_md5=False"):
        client.resources.download(number, tmp_path / "x")

    client.resources.download(number, tmp_path / "x", verify_md5=False)

    assert (tmp_path / "x").read_bytes()[1:] == DATA[1:]


def test_a_file_object_is_written_from_its_position_on_and_cut_back(
    fake_sandbox: FakeSandbox, client: SandboxClient
) -> None:
    number = fake_sandbox.add_resource(DATA, links=0)
    into = io.BytesIO(b"head")
    into.seek(4)
    fake_sandbox.corrupt(number, times=3)
    with pytest.raises(ChecksumMismatch):
        client.resources.download(number, into)
    assert into.getvalue() == b"head" and into.tell() == 4

    fake_sandbox.corrupt(number, times=1)
    client.resources.download(number, into)
    assert into.getvalue() == b"head" + DATA


class _Pipe(io.RawIOBase):
    def seekable(self) -> bool:
        return False


def test_what_cannot_be_cut_back_is_not_written_to(
    fake_sandbox: FakeSandbox, client: SandboxClient
) -> None:
    number = fake_sandbox.add_resource(DATA)
    with pytest.raises(ValueError, match="not seekable"):
        client.resources.download(number, _Pipe())  # type: ignore[arg-type]
    assert tries(fake_sandbox) == []


@pytest.mark.parametrize("state", ["DELETED", "NOT_READY", "BROKEN"])
def test_only_what_is_ready_is_downloaded(
    fake_sandbox: FakeSandbox, client: SandboxClient, tmp_path: Path, state: str
) -> None:
    number = fake_sandbox.add_resource(state=state)
    with pytest.raises(ResourceNotReady, match=f"is {state}, not READY") as caught:
        client.resources.download(number, tmp_path / "x")
    assert caught.value.state == state and tries(fake_sandbox) == []
    with pytest.raises(NotFound):
        client.resources.download(404, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["state", "md5"])
def test_what_a_resource_says_of_itself_is_shown_without_secrets_in_one_line(
    fake_sandbox: FakeSandbox, client: SandboxClient, name: str
) -> None:
    said = f"X\n{fake_sandbox.token} " + "long " * 1000
    number = fake_sandbox.add_resource(DATA)
    answer = {**client.resources.get(number).raw, name: said}
    fake_sandbox.faults.next("resources.get", json=answer)

    with pytest.raises((ResourceNotReady, ChecksumMismatch)) as caught:
        client.resources.download(number, io.BytesIO())

    shown = f"{caught.value} {caught.value.__dict__}"
    assert fake_sandbox.token not in shown and "\n" not in str(caught.value) and len(shown) < 2500


def test_an_unbuffered_file_that_takes_a_part_of_each_piece_gets_all(
    fake_sandbox: FakeSandbox, client: SandboxClient
) -> None:
    class Slow(io.BytesIO):
        def write(self, data: Any) -> int:
            return super().write(bytes(data)[:30_000])

    number = fake_sandbox.add_resource(DATA)
    into = Slow()

    client.resources.download(number, into)

    assert into.getvalue() == DATA


def test_several_files_come_as_one_archive_from_the_proxy(
    fake_sandbox: FakeSandbox, client: SandboxClient
) -> None:
    number = fake_sandbox.add_resource(files={"a/b": b"one", "c": b"two"})
    fake_sandbox.faults.next("resources.data", status=500)
    into = io.BytesIO()

    client.resources.download(number, into)

    into.seek(0)
    with tarfile.open(fileobj=into, mode="r:gz") as archive:
        assert archive.getnames() == ["a/b", "c"]
    assert fake_sandbox.calls[-1].query == {"origin": "us", "stream": "tgz"}
    assert tries(fake_sandbox) == ["proxy", "proxy"]


def test_a_connection_that_breaks_off_is_followed_by_another(
    fake_sandbox: FakeSandbox, client: SandboxClient, tmp_path: Path
) -> None:
    number = fake_sandbox.add_resource(DATA)
    fake_sandbox.faults.next("resources.data", reset="before-apply")
    fake_sandbox.faults.next("resources.data", body=DATA[:1000])

    client.resources.download(number, tmp_path / "x")

    assert (tmp_path / "x").read_bytes() == DATA
    assert tries(fake_sandbox) == ["proxy", "proxy", "links", "link"]


def test_links_that_cannot_be_had_do_not_end_it(
    fake_sandbox: FakeSandbox, client: SandboxClient, tmp_path: Path
) -> None:
    number = fake_sandbox.add_resource(DATA)
    fake_sandbox.faults.next("resources.data", status=500, times=2)
    fake_sandbox.faults.next("resources.links", status=500)

    client.resources.download(number, tmp_path / "x")

    assert tries(fake_sandbox) == ["proxy", "proxy", "links", "proxy"]


# Other hosts.


def test_foreign_sources_are_never_asked(
    fake_sandbox: FakeSandbox, client: SandboxClient, tmp_path: Path
) -> None:
    evil = "http://evil.test/1"
    number = fake_sandbox.add_resource(DATA, links=[evil], http={"proxy": evil})

    with pytest.raises(ForeignLink) as caught:
        client.resources.download(number, tmp_path / "x")
    assert "evil.test" in str(caught.value) and tries(fake_sandbox) == ["links"]

    fake_sandbox.state.resources[number]["own_links"] = 1
    client.resources.download(number, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA
    fake_sandbox.corrupt(number, source="link")
    with pytest.raises(ChecksumMismatch):
        client.resources.download(number, tmp_path / "x")


def test_allowed_hosts_are_asked_and_without_our_token(tmp_path: Path) -> None:
    data, storage = FakeSandbox(), FakeSandbox()
    with data.serve(), storage.serve() as storage_url:
        link = f"{storage_url}/storage/host1/1"
        number = data.add_resource(DATA, links=[link], http={"proxy": "http://evil.test/1"})
        storage.add_resource(DATA)
        section = {**data.config(), "allowed_origins": [storage.root]}
        with SandboxClient.from_config(section) as client:
            client.resources.download(number, tmp_path / "x")

    assert (tmp_path / "x").read_bytes() == DATA
    [asked] = storage.calls
    assert (asked.op, "Authorization" in asked.headers) == ("resources.link", False)


def test_the_proxy_of_the_configuration_is_asked_where_a_resource_names_none(
    tmp_path: Path,
) -> None:
    with (fake := FakeSandbox()).serve() as url:
        number = fake.add_resource(DATA, http={})
        fake.add_resource(DATA, http={}, links=0)
        section = {**fake.config(), "proxy": f"{url}/proxy/"}
        with SandboxClient.from_config(section) as client:
            client.resources.download(number, tmp_path / "x")
        assert tries(fake) == ["proxy"]
        with SandboxClient.from_config(fake.config()) as client:
            client.resources.download(number, tmp_path / "x")
            with pytest.raises(ApiProtocolError, match="neither proxy nor links"):
                client.resources.download(number + 1, tmp_path / "y")
    assert tries(fake)[1:] == ["links", "link", "links"]


# Time.


def test_the_time_is_for_all_of_it(
    fake_sandbox: FakeSandbox, client: SandboxClient, tmp_path: Path
) -> None:
    number = fake_sandbox.add_resource(DATA)
    fake_sandbox.faults.on("resources.data", delay=1.5)

    with pytest.raises(DeadlineExceeded):
        client.resources.download(number, tmp_path / "x", timeout=0.8)
    assert tries(fake_sandbox) == ["proxy"] and list(tmp_path.iterdir()) == []


def test_a_download_may_take_longer_than_a_call(
    fake_sandbox: FakeSandbox, yandex_fakes: Any, tmp_path: Path
) -> None:
    number = fake_sandbox.add_resource(b"0123456789")
    client = yandex_fakes.client("sandbox", total_timeout=0.6)
    fake_sandbox.faults.on("resources.data", delay=1.0)

    client.resources.download(number, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"0123456789"


def test_a_full_disk_is_no_reason_to_ask_again(
    fake_sandbox: FakeSandbox, client: SandboxClient
) -> None:
    number = fake_sandbox.add_resource(DATA)
    with open("/dev/full", "r+b", buffering=0) as full, pytest.raises(OSError, match="No space"):
        client.resources.download(number, full)
    assert tries(fake_sandbox) == ["proxy"]


class _Cancelled(io.BytesIO):
    """A file during whose second write the greenlet is killed."""

    def __init__(self) -> None:
        super().__init__(b"head")
        self.seek(4)
        self.writes = 0

    def write(self, data: Any) -> int:
        self.writes += 1
        if self.writes == 2:
            raise KeyboardInterrupt
        return super().write(data)


def test_a_download_that_is_cancelled_leaves_nothing_behind(
    fake_sandbox: FakeSandbox, client: SandboxClient
) -> None:
    number = fake_sandbox.add_resource(DATA)
    into = _Cancelled()

    with pytest.raises(KeyboardInterrupt):
        client.resources.download(number, into)

    assert into.writes == 2 and into.getvalue() == b"head"
    assert client._slots.free == client._slots.size
    assert tries(fake_sandbox) == ["proxy"]


def test_the_last_error_says_how_often_was_tried(
    fake_sandbox: FakeSandbox, client: SandboxClient
) -> None:
    number = fake_sandbox.add_resource(DATA, links=0)
    fake_sandbox.faults.on("resources.data", reset="before-apply")
    with pytest.raises(ApiConnectionError) as caught:
        client.resources.download(number, io.BytesIO())
    assert caught.value.attempts == 3
