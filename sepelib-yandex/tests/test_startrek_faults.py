"""What the client does when answers are lost, refused or late."""

import io
import os
from typing import BinaryIO, cast

import pytest

from sepelib.util.testing import Clock
from sepelib.yandex.errors import (
    ApiConnectionError,
    ApiProtocolError,
    DeadlineExceeded,
    Forbidden,
    ServerError,
    TooManyRequests,
)
from sepelib.yandex.startrek import StartrekClient
from sepelib.yandex.testing import FakeStartrek, YandexFakes

pytestmark = pytest.mark.yandex(transport="both")

FIELDS = {"queue": "TEST", "summary": "x"}


@pytest.fixture
def fake(fake_startrek: FakeStartrek) -> FakeStartrek:
    fake_startrek.add_queue("TEST")
    return fake_startrek


@pytest.fixture
def client(fake: FakeStartrek, startrek_client: StartrekClient) -> StartrekClient:
    return startrek_client


@pytest.mark.parametrize("times", [1, 2])
def test_a_create_whose_answer_was_lost_makes_exactly_one_issue(
    fake: FakeStartrek, client: StartrekClient, times: int
) -> None:
    fake.faults.next("issues.create", reset="after-apply", times=times)

    issue = client.issues.create("TEST", "x")

    assert issue.key == "TEST-1" and len(fake.state.issues) == 1
    sent = fake.calls.of("issues.create")
    assert len(sent) == times + 1 and len({call.json["unique"] for call in sent}) == 1
    assert [call.retry for call in sent] == [False] + [True] * times


def test_a_create_that_never_arrived_is_sent_again(
    fake: FakeStartrek, client: StartrekClient
) -> None:
    fake.faults.next("issues.create", reset="before-apply")
    fake.faults.next("issues.create", status=500)

    assert client.issues.create("TEST", "x").key == "TEST-1"
    assert len(fake.state.issues) == 1 and fake.calls.of("issues.by_unique") == []


def test_a_create_whose_answer_is_cut_or_late_makes_one_issue(
    fake: FakeStartrek, yandex_fakes: YandexFakes
) -> None:
    client: StartrekClient = yandex_fakes.client("startrek", timeout=(5.0, 0.2))
    fake.faults.next("issues.create", body=b"<html>")
    client.issues.create("TEST", "x")
    fake.faults.next("issues.create", delay=0.5)
    client.issues.create("TEST", "y")

    assert [issue["summary"] for issue in fake.state.issues.values()] == ["x", "y"]


def test_an_issue_whose_answer_was_lost_and_cannot_be_found_may_be_there(
    fake: FakeStartrek, client: StartrekClient
) -> None:
    fake.faults.next("issues.create", reset="after-apply")
    fake.faults.next("issues.by_unique", status=403)

    with pytest.raises(Forbidden) as caught:
        client.issues.create("TEST", "x")

    assert caught.value.maybe_applied and len(fake.state.issues) == 1
    fake.add_issue("TEST", unique="taken")
    fake.faults.next("issues.by_unique", status=403)
    with pytest.raises(Forbidden) as caught:
        client.issues.create("TEST", "x", unique="taken")
    assert not caught.value.maybe_applied  # it is somebody else's


def test_a_create_and_its_look_for_the_issue_have_one_time(
    fake: FakeStartrek, yandex_fakes: YandexFakes
) -> None:
    clock = Clock(1000.0)
    client: StartrekClient = yandex_fakes.client("startrek", clock=clock, sleep=clock.sleep)
    fake.add_issue("TEST", unique="taken")
    fake.faults.next("issues.create", status=503, headers={"Retry-After": "20"})
    fake.faults.next("issues.by_unique", status=503, headers={"Retry-After": "20"})

    with pytest.raises((ServerError, DeadlineExceeded)):
        client.issues.create("TEST", "x", unique="taken")

    assert clock.now <= 1030.0


def test_a_create_without_a_unique_is_sent_once(fake: FakeStartrek, client: StartrekClient) -> None:
    fake.faults.next("issues.create", reset="after-apply")

    with pytest.raises(ApiConnectionError, match="it may have been applied") as caught:
        client.request("issues.create", "POST", at={"v": "v2"}, json=FIELDS)

    assert caught.value.maybe_applied and caught.value.attempts == 1
    assert len(fake.state.issues) == 1


@pytest.mark.parametrize("reset", ["before-apply", "after-apply"])
@pytest.mark.parametrize(
    "op",
    [
        "issues.update",
        "issues.execute",
        "issues.move",
        "issues.clone",
        "comments.create",
        "comments.update",
        "links.create",
        "remote_links.create",
        "attachments.upload",
        "attachments.upload_temporary",
        "bulk.update",
        "dictionaries.archive_version",
    ],
)
def test_a_change_that_may_have_been_applied_is_not_sent_again(
    fake: FakeStartrek, client: StartrekClient, op: str, reset: str
) -> None:
    fake.add_queue("OPS"), fake.add_version("TEST", "1.0")
    fake.add_issue("TEST"), fake.add_issue("TEST")
    client.comments.create("TEST-1", "x")
    do = {
        "issues.update": lambda: client.issues.update("TEST-1", summary="y"),
        "issues.execute": lambda: client.issues.execute("TEST-1", "start"),
        "issues.move": lambda: client.issues.move("TEST-1", "OPS"),
        "issues.clone": lambda: client.issues.clone("TEST-1", ["OPS"]),
        "comments.create": lambda: client.comments.create("TEST-1", "x"),
        "comments.update": lambda: client.comments.update("TEST-1", 1, "y"),
        "links.create": lambda: client.links.create("TEST-1", "relates", "TEST-2"),
        "remote_links.create": lambda: client.remote_links.create("TEST-1", "k", "o"),
        "attachments.upload": lambda: client.attachments.upload("TEST-1", b"x", "f"),
        "attachments.upload_temporary": lambda: client.attachments.upload_temporary(b"x", "f"),
        "bulk.update": lambda: client.bulk.update(["TEST-1"], {"summary": "y"}),
        "dictionaries.archive_version": lambda: client.dictionaries.archive_version(1),
    }[op]
    before = len(fake.calls.of(op))
    fake.faults.on(op, reset="after-apply" if reset == "after-apply" else "before-apply")

    with pytest.raises(ApiConnectionError) as caught:
        do()

    assert caught.value.maybe_applied and len(fake.calls.of(op)) == before + 1
    assert caught.value.op == op


def test_a_removal_that_had_worked_is_no_error(fake: FakeStartrek, client: StartrekClient) -> None:
    fake.add_issue("TEST"), fake.add_issue("TEST")
    comment = client.comments.create("TEST-1", "x")
    link = client.links.create("TEST-1", "relates", "TEST-2")
    file = client.attachments.upload("TEST-1", b"x", "f")
    fake.faults.next("*.delete", reset="after-apply")
    client.comments.delete("TEST-1", comment)
    fake.faults.next("*.delete", reset="after-apply")
    client.links.delete("TEST-1", link)
    fake.faults.next("*.delete", reset="after-apply")
    client.attachments.delete("TEST-1", file)

    assert len(fake.calls.of("comments.delete")) == len(fake.calls.of("links.delete")) == 2
    assert fake.state.files == {}


def test_fast_calls_that_are_refused_wait_as_they_are_told(
    fake: FakeStartrek, yandex_fakes: YandexFakes
) -> None:
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        fake.clock.advance(seconds)

    client: StartrekClient = yandex_fakes.client("startrek", sleep=sleep)
    fake.faults.rate_limit(2, per=3.0)

    for number in range(5):
        client.issues.create("TEST", f"{number}")

    assert len(fake.state.issues) == 5 and waits and all(seconds >= 2.0 for seconds in waits)


def test_an_upload_that_was_refused_is_rewound(fake: FakeStartrek, client: StartrekClient) -> None:
    fake.add_issue("TEST")
    content = os.urandom(300_000)
    file = io.BytesIO(b"skipped" + content)
    file.seek(7)
    fake.faults.next(status=429, headers={"Retry-After": "0"})
    fake.faults.next(status=503, headers={"Retry-After": "0"})

    uploaded = client.attachments.upload("TEST-1", file, "f")

    assert [one.content for one in fake.state.files.values()] == [content]
    assert uploaded.size == len(content) and len(fake.calls.of("attachments.upload")) == 3


class Pipe(io.BytesIO):
    """Read once, from its start to its end."""

    def seekable(self) -> bool:
        return False

    def seek(self, position: int, whence: int = 0) -> int:
        raise io.UnsupportedOperation("seek")

    def tell(self) -> int:
        raise io.UnsupportedOperation("tell")


def test_an_upload_that_cannot_be_rewound_is_refused_a_second_attempt(
    fake: FakeStartrek, client: StartrekClient
) -> None:
    fake.add_issue("TEST")
    client.attachments.upload("TEST-1", cast(BinaryIO, Pipe(b"whole")), "f")
    fake.faults.next(status=429, headers={"Retry-After": "0"})

    with pytest.raises(TooManyRequests) as caught:
        client.attachments.upload("TEST-1", cast(BinaryIO, Pipe(b"half")), "f")

    assert caught.value.attempts == 1
    assert [one.content for one in fake.state.files.values()] == [b"whole"]


def test_a_file_that_becomes_shorter_under_way_is_told(
    fake: FakeStartrek, client: StartrekClient
) -> None:
    class Shrinking(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            self.truncate(1000)
            return super().read(size)

    with pytest.raises(ValueError, match="the file has become shorter"):
        client.attachments.upload_temporary(Shrinking(bytes(100_000)), "f")

    assert fake.state.files == {}
    assert client.myself().login == "robot"  # and nothing of the client is held


def test_a_file_that_grows_under_way_is_sent_as_it_was(
    fake: FakeStartrek, client: StartrekClient
) -> None:
    class Growing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            at = self.tell()
            self.seek(0, io.SEEK_END)
            self.write(b"more")
            self.seek(at)
            return super().read(size)

    client.attachments.upload_temporary(Growing(b"x" * 100_000), "f")

    assert [len(one.content) for one in fake.state.files.values()] == [100_000]


def test_an_upload_that_is_too_large_says_so(fake: FakeStartrek, client: StartrekClient) -> None:
    fake.attachment_limit = 10

    with pytest.raises(Exception, match="413: more than 10 bytes"):
        client.attachments.upload_temporary(b"x" * 11, "f")


def test_a_download_that_breaks_off_is_told(fake: FakeStartrek, client: StartrekClient) -> None:
    fake.add_issue("TEST")
    file = client.attachments.upload("TEST-1", b"x" * 1000, "f")
    fake.faults.next("attachments.open", reset="after-apply", times=3)

    with pytest.raises(ApiConnectionError) as caught:
        client.attachments.download(file, io.BytesIO())

    assert caught.value.attempts == 3 and caught.value.op == "attachments.open"


def test_a_download_of_another_length_than_was_told_is_an_error(
    fake: FakeStartrek, client: StartrekClient
) -> None:
    fake.add_issue("TEST")
    file = client.attachments.upload("TEST-1", b"x" * 1000, "f")
    fake.faults.on("attachments.open", body=b"x" * 900)  # cut, by a proxy that told no length
    taken = io.BytesIO()

    with pytest.raises(ApiProtocolError, match="900 bytes came, and 1000 were told of") as caught:
        client.attachments.download(file, taken)

    assert caught.value.op == "attachments.open"
    assert file.content is not None
    assert client.attachments.download(file.content, taken) == 900  # nothing is known of an URL


def test_a_transfer_may_have_a_time_of_its_own(fake: FakeStartrek, client: StartrekClient) -> None:
    fake.add_issue("TEST")
    file = client.attachments.upload("TEST-1", b"x", "f", total_timeout=60.0)
    fake.faults.next("attachments.open", delay=5.0)

    with pytest.raises(ApiConnectionError):
        client.attachments.download(file, io.BytesIO(), timeout=0.1, total_timeout=0.1)


def test_a_5xx_stays_what_it_is(fake: FakeStartrek, client: StartrekClient) -> None:
    fake.faults.on("myself", status=503)

    with pytest.raises(ServerError, match=r"GET .*/v2/myself.*status 503") as caught:
        client.myself()

    assert caught.value.attempts == 3 and caught.value.status == 503


def test_all_the_words_of_an_error_are_kept(fake: FakeStartrek, client: StartrekClient) -> None:
    answer = {"errors": {"summary": "too long"}, "errorMessages": ["one", "two"]}
    fake.faults.next(status=400, json=answer)

    with pytest.raises(Exception, match="status 400: one; two; summary: too long") as caught:
        client.myself()

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"errors": [], "errorMessages": {}}', b""])
def test_an_error_in_another_form_is_told_as_it_came(
    fake: FakeStartrek, client: StartrekClient, body: bytes
) -> None:
    fake.faults.next(status=403, body=body)

    with pytest.raises(Exception, match="status 403") as caught:
        client.myself()

    assert (body.decode() or "no words in the answer") in str(caught.value)


def test_an_answer_of_another_kind_is_no_crash(fake: FakeStartrek, client: StartrekClient) -> None:
    fake.add_issue("TEST")
    fake.faults.next(json=["text"])
    assert client.issues.get("TEST-1").raw == {"value": ["text"]}
    fake.faults.next(json={"a": 1})
    with pytest.raises(ApiProtocolError, match="is no list"):
        list(client.issues.search(queue="TEST"))
    fake.faults.next(json={"a": 1})
    with pytest.raises(ApiProtocolError, match="the transitions are no list"):
        client.issues.transitions("TEST-1")
    fake.faults.next(json=[1, None])
    assert [way.raw for way in client.issues.transitions("TEST-1")] == [
        {"value": 1},
        {"value": None},
    ]
