"""What hangs on an issue: comments, links, files, against the fake."""

import io

import pytest

from sepelib.yandex.errors import (
    ApiProtocolError,
    BadRequest,
    ForeignLink,
    NotFound,
)
from sepelib.yandex.startrek import Attachment, StartrekClient
from sepelib.yandex.testing import FakeStartrek

pytestmark = pytest.mark.yandex(transport="both")


@pytest.fixture
def fake(fake_startrek: FakeStartrek) -> FakeStartrek:
    fake_startrek.add_queue("TEST")
    fake_startrek.add_queue("OPS")
    return fake_startrek


@pytest.fixture
def client(fake: FakeStartrek, startrek_client: StartrekClient) -> StartrekClient:
    return startrek_client


def test_comments_are_written_changed_and_removed(
    fake: FakeStartrek, client: StartrekClient
) -> None:
    fake.add_user("bob")
    issue = client.issues.create("TEST", "x")
    file = client.attachments.upload_temporary(b"line\n", "log.txt")
    assert file.id is not None

    comment = client.comments.create(
        issue, "look", summonees=["bob"], attachment_ids=[file.id], add_to_followers=True
    )
    changed = client.comments.update(issue, comment, "look here")

    assert (comment.id, comment.version, changed.version) == (1, 1, 2)
    assert [one.display for one in changed.summonees] == ["Bob"]
    assert [one.display for one in changed.attachments] == ["log.txt"]
    assert [one.display for one in client.issues.get(issue).followers] == ["Robot"]
    assert client.issues.get(issue).last_comment_updated_at == comment.created_at
    client.comments.delete(issue, comment)
    assert list(client.comments.list(issue)) == []
    with pytest.raises(NotFound):
        client.comments.delete(issue, comment)


def test_links_are_seen_from_both_sides(fake: FakeStartrek, client: StartrekClient) -> None:
    one, other = client.issues.create("TEST", "x"), client.issues.create("OPS", "y")

    link = client.links.create(one, "is subtask for", other)

    (back,) = client.links.list(other)
    assert link.object is not None and link.object.key == "OPS-1" and link.direction == "outward"
    assert back.object is not None and back.object.key == "TEST-1" and back.direction == "inward"
    client.links.delete(one, link)
    assert list(client.links.list(one)) == list(client.links.list(other)) == []
    with pytest.raises(BadRequest, match="relationship: none of relates, depends on"):
        client.links.create(one, "adores", other)


def test_remote_links_lead_to_other_applications(
    fake: FakeStartrek, client: StartrekClient
) -> None:
    issue = client.issues.create("TEST", "x")

    client.remote_links.create(issue, "CL-7", "ru.example.reviews", backlink=True)

    (link,) = client.remote_links.list(issue)
    assert link.object is not None and link.object.key == "CL-7"
    sent = fake.calls.of("remote_links.create")[-1]
    assert sent.query == {"backlink": "true"}
    assert sent.json == {"relationship": "RELATES", "key": "CL-7", "origin": "ru.example.reviews"}


def test_attachments_come_and_go(fake: FakeStartrek, client: StartrekClient) -> None:
    issue = client.issues.create("TEST", "x")
    content = bytes(range(256)) * 4000  # 1 MB

    uploaded = client.attachments.upload(issue, io.BytesIO(content), "дамп ?#.bin")
    (listed,) = client.attachments.list(issue)
    taken = io.BytesIO()

    assert uploaded == listed and (listed.name, listed.size) == ("дамп ?#.bin", len(content))
    assert client.attachments.download(listed, taken) == len(content)
    assert taken.getvalue() == content
    assert listed.id is not None and listed.name is not None
    with client.attachments.open_named(issue, listed.id, listed.name) as stream:
        assert b"".join(stream.pieces()) == content
    client.attachments.delete(issue, listed)
    with pytest.raises(NotFound):
        client.attachments.download(listed, taken)


def test_an_upload_begins_where_the_file_is(fake: FakeStartrek, client: StartrekClient) -> None:
    fake.add_issue("TEST")
    file = io.BytesIO(b"head body")
    file.seek(5)

    client.attachments.upload("TEST-1", file, "f")

    assert [one.content for one in fake.state.files.values()] == [b"body"]


def test_a_temporary_upload_becomes_the_new_issues(
    fake: FakeStartrek, client: StartrekClient
) -> None:
    file = client.attachments.upload_temporary(b"line\n", "log.txt")
    assert file.id is not None

    issue = client.issues.create("TEST", "x", attachment_ids=[file.id])

    assert [one.name for one in client.attachments.list(issue)] == ["log.txt"]
    with pytest.raises(BadRequest, match="attachmentIds: no temporary attachment 1"):
        client.issues.create("TEST", "y", attachment_ids=[file.id])


def test_a_content_url_of_another_host_is_refused_before_anything_is_sent(
    fake: FakeStartrek, client: StartrekClient
) -> None:
    attachment = Attachment.from_dict({"content": "https://files.example/1/log.txt"})

    with pytest.raises(ForeignLink) as caught:
        client.attachments.download(attachment, io.BytesIO())

    assert "files.example" in str(caught.value) and fake.calls.ops == []


@pytest.mark.parametrize(
    "name", ["a/b", "../../x", "a?b#c%2e", "a;b", '"; filename="x', "дамп\u2028"]
)
def test_a_hostile_name_of_a_file_stays_a_name(
    fake: FakeStartrek, client: StartrekClient, name: str
) -> None:
    fake.add_issue("TEST")
    file = client.attachments.upload("TEST-1", b"line\n", name)
    assert file.name == name and file.id is not None

    taken = io.BytesIO()
    client.attachments.download(file, taken)
    with client.attachments.open_named("TEST-1", file.id, name) as stream:
        assert b"".join(stream.pieces()) == taken.getvalue() == b"line\n"


@pytest.mark.parametrize("name", ["дамп 1.bin", "a%20b", "a|b^c`{}", "\ud83d"])
def test_a_content_url_that_is_not_quoted_is_followed(
    fake: FakeStartrek, client: StartrekClient, name: str
) -> None:
    fake.add_issue("TEST")
    client.attachments.upload("TEST-1", b"line\n", "x")
    url = f"{fake.url}/v2/issues/TEST-1/attachments/1/{name}"

    assert client.attachments.download(url, io.BytesIO()) == 5


@pytest.mark.parametrize(
    "url",
    [
        "http://startrek.example/дамп",
        "http://ёж.test/x",
        "http://startrek.test\\@evil.test/x",
        "http://u:p@startrek.test/x",
        "http://startrek.test:81/x",
        "https://startrek.test/x",
        "http://startrek.test./x",
        "http://[::1]/x",
        "http://[bad/x",
        "javascript:1",
    ],
)
def test_hosts_are_compared_as_they_are(
    fake: FakeStartrek, client: StartrekClient, url: str
) -> None:
    with pytest.raises(ForeignLink):
        client.attachments.open(url)

    assert fake.calls.ops == []


@pytest.mark.parametrize("name", [".", "..", "%2e%2E"])
def test_a_content_url_that_leads_to_something_else_is_refused(
    fake: FakeStartrek, client: StartrekClient, name: str
) -> None:
    fake.add_issue("TEST")
    url = f"{fake.url}/v2/issues/TEST-1/attachments/1/{name}"

    with pytest.raises(ApiProtocolError, match="is no name of a file"):
        client.attachments.download(Attachment.from_dict({"content": url}), io.BytesIO())

    assert fake.calls.ops == []


def test_the_changelog_is_walked_by_the_cursor_of_its_links(
    fake: FakeStartrek, client: StartrekClient
) -> None:
    issue = client.issues.create("TEST", "x")
    for number in range(6):
        client.issues.update(issue, summary=f"{number}")
    client.issues.update(issue, tags=["a"])

    whole = list(client.issues.changelog(issue, per_page=3))
    of_tags = list(client.issues.changelog(issue, field="tags"))

    assert [one.type for one in whole] == ["IssueCreated"] + ["IssueUpdated"] * 7
    assert len(fake.calls.of("issues.changelog")) == 4
    assert [one.fields[0]["to"] for one in of_tags] == [["a"]]
    assert list(client.issues.changelog(issue, type="IssueCreated")) == whole[:1]
