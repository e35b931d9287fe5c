"""Changes are compared with what they were based on, and made in one revision or not at all."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from sepelib.util.processes import Completed, run
from sepelib.vcs.svnfile import (
    Action,
    AlreadyExists,
    Copy,
    Delete,
    Mkdir,
    Move,
    NotFound,
    OutOfDate,
    Put,
    SvnClient,
    SvnError,
    SvnFile,
)
from sepelib.vcs.testing import Repository

pytest_plugins = ["sepelib.vcs.pytest_plugin"]


def test_put_writes_what_nobody_has_changed(svn_repo: Repository, client: SvnClient) -> None:
    svn_repo.commit({"f": b"old"})
    svn_repo.commit({"other": b""})

    assert client.put(f"{svn_repo.url}/f", b"\x00new", "why", base_revision=1) == 3
    assert svn_repo.cat("f") == b"\x00new"
    assert next(client.log(f"{svn_repo.url}/f")).message == "why"


def test_a_stale_put_is_out_of_date_and_changes_nothing(
    svn_repo: Repository, client: SvnClient
) -> None:
    svn_repo.commit({"f": b"old"})
    svn_repo.commit({"f": b"theirs"})

    with pytest.raises(OutOfDate, match="changed since revision 1, last in 2"):
        client.put(f"{svn_repo.url}/f", b"mine", "m", base_revision=1)
    assert svn_repo.youngest == 2 and svn_repo.cat("f") == b"theirs"
    svn_repo.commit({"f": None})
    with pytest.raises(OutOfDate, match="deleted since revision 2"):
        client.put(f"{svn_repo.url}/f", b"mine", "m", base_revision=2)
    assert svn_repo.paths() == []


Quicker = Callable[[Mapping[str, bytes | None]], SvnClient]


@pytest.fixture(params=["before the transaction", "within the transaction"])
def quicker(svn_repo: Repository, request: pytest.FixtureRequest) -> Quicker:
    """A client, and somebody else who commits after it has looked and before it has committed."""

    def client(files: Mapping[str, bytes | None]) -> SvnClient:
        def runner(args: Sequence[str], /, **kwargs: Any) -> Completed:
            if args[0] == "svnmucc":
                if request.param == "before the transaction":
                    svn_repo.commit(files)
                else:
                    svn_repo.before_next_commit(files)
            return run(args, **kwargs)

        return SvnClient(schemes=["file"], runner=runner)

    return client


@pytest.mark.parametrize("theirs", [b"theirs", None], ids=["changed", "deleted"])
def test_somebody_who_commits_between_the_look_and_the_put_wins(
    svn_repo: Repository, quicker: Quicker, theirs: bytes | None
) -> None:
    svn_repo.commit({"f": b"old"})

    with pytest.raises(OutOfDate) as caught:
        quicker({"f": theirs}).put(f"{svn_repo.url}/f", b"mine", "m", base_revision=1)
    assert caught.value.code in ("E160028", "E160024", "E160013")
    assert svn_repo.youngest == 2
    assert svn_repo.paths() == (["f"] if theirs else [])


def test_somebody_who_creates_it_between_the_look_and_the_put_wins(
    svn_repo: Repository, quicker: Quicker
) -> None:
    svn_repo.commit({"d/f": b""})
    changes: list[tuple[Callable[[SvnClient, str], int], str]] = [
        (lambda client, url: client.put(url, b"mine", "m", base_revision=None), "d/put"),
        (lambda client, url: client.mkdir(url, "m"), "d/made"),
        (lambda client, url: client.copy(f"{svn_repo.url}/d/f", url, "m"), "d/copied"),
        (lambda client, url: client.move(f"{svn_repo.url}/d/f", url, "m"), "d/moved"),
    ]
    for change, path in changes:
        with pytest.raises(OutOfDate) as caught:
            change(quicker({path: b"theirs"}), f"{svn_repo.url}/{path}")
        assert caught.value.code in ("E160020", "E160024", "E160028")
        assert isinstance(caught.value, AlreadyExists) == (caught.value.code == "E160020")
        assert svn_repo.cat(path) == b"theirs"
    assert svn_repo.youngest == 5


def test_a_file_whose_directory_goes_meanwhile_is_out_of_date(
    svn_repo: Repository, quicker: Quicker
) -> None:
    svn_repo.commit({"d/f": b"old"})

    with pytest.raises(OutOfDate):
        quicker({"d": None}).put(f"{svn_repo.url}/d/f", b"mine", "m", base_revision=1)
    assert svn_repo.paths() == []


def test_somebody_elsewhere_in_the_repository_disturbs_nobody(
    svn_repo: Repository, client: SvnClient
) -> None:
    svn_repo.commit({"d/f": b"old"})
    svn_repo.before_next_commit({"d/g": b"theirs"})

    assert client.put(f"{svn_repo.url}/d/f", b"mine", "m", base_revision=1) == 3
    assert (svn_repo.cat("d/f"), svn_repo.cat("d/g")) == (b"mine", b"theirs")


def test_put_creates_only_where_nothing_is(svn_repo: Repository, client: SvnClient) -> None:
    svn_repo.commit({"d/f": b"theirs"})

    assert client.put(f"{svn_repo.url}/d/new", b"mine", "m", base_revision=None) == 2
    for there in ("d/f", "d"):
        with pytest.raises(AlreadyExists):
            client.put(f"{svn_repo.url}/{there}", b"mine", "m", base_revision=None)
    with pytest.raises(NotFound, match="d/none: does not exist"):
        client.put(f"{svn_repo.url}/d/none/new", b"mine", "m", base_revision=None)
    with pytest.raises(NotFound):
        client.put(f"{svn_repo.url}/d/f/new", b"mine", "m", base_revision=None)
    assert svn_repo.youngest == 2 and svn_repo.cat("d/f") == b"theirs"


def test_put_never_replaces_a_directory(svn_repo: Repository, client: SvnClient) -> None:
    svn_repo.commit({"d/f": b""})

    with pytest.raises(SvnError, match="a directory"):
        client.put(f"{svn_repo.url}/d", b"mine", "m", base_revision=1)
    assert svn_repo.paths() == ["d/", "d/f"]


def test_put_on_a_base_that_lacks_the_file_is_not_a_creation(
    svn_repo: Repository, client: SvnClient
) -> None:
    svn_repo.commit({"f": b""})
    for url in ("f", "nope"):
        with pytest.raises(NotFound, match="does not exist in revision 0"):
            client.put(f"{svn_repo.url}/{url}", b"", "m", base_revision=0)


def test_an_older_copy_in_its_place_is_a_change(svn_repo: Repository, client: SvnClient) -> None:
    svn_repo.commit({"d/f": b"first"})
    svn_repo.commit({"d/f": b"second"})
    client.delete(f"{svn_repo.url}/d", "rolled back, part one")
    svn_repo.commit({"e/x": b""})
    # The copy of a directory keeps the numbers of what is in it: f was last changed in 1 now.
    args = ["svnmucc", "-m", "two", "cp", "1", f"{svn_repo.url}/d", f"{svn_repo.url}/d"]
    assert run(args, timeout=30.0).returncode == 0
    assert client.info(f"{svn_repo.url}/d/f").last_changed_revision == 1

    with pytest.raises(OutOfDate):
        client.put(f"{svn_repo.url}/d/f", b"mine", "m", base_revision=2)
    assert svn_repo.cat("d/f") == b"first"


def test_mkdir_delete_copy_and_move(svn_repo: Repository, client: SvnClient) -> None:
    url = svn_repo.url
    assert client.mkdir(f"{url}/d", "m") == 1
    client.put(f"{url}/d/f", b"1", "m", base_revision=None)
    client.copy(f"{url}/d", f"{url}/e", "m")
    client.put(f"{url}/e/f", b"2", "m", base_revision=3)
    client.copy(f"{url}/e/f", f"{url}/old", "m", revision=3)
    client.move(f"{url}/e/f", f"{url}/d/g", "m", base_revision=4)
    assert svn_repo.paths() == ["d/", "d/f", "d/g", "e/", "old"]
    assert (svn_repo.cat("d/g"), svn_repo.cat("old")) == (b"2", b"1")
    assert client.delete(f"{url}/d", "m") == 7
    assert svn_repo.paths() == ["e/", "old"]


def test_mkdir_copy_and_move_want_a_free_place_in_a_directory(
    svn_repo: Repository, client: SvnClient
) -> None:
    svn_repo.commit({"a": b"", "b": b""})
    url = svn_repo.url
    make: list[Callable[[str], int]] = [
        lambda to: client.mkdir(to, "m"),
        lambda to: client.copy(f"{url}/a", to, "m"),
        lambda to: client.move(f"{url}/a", to, "m"),
    ]
    for change in make:
        with pytest.raises(AlreadyExists):
            change(f"{url}/b")
        with pytest.raises(NotFound):
            change(f"{url}/none/c")
    with pytest.raises(NotFound):
        client.copy(f"{url}/none", f"{url}/c", "m")
    with pytest.raises(NotFound):
        client.move(f"{url}/none", f"{url}/c", "m")
    with pytest.raises(NotFound):
        client.delete(f"{url}/none", "m")
    assert svn_repo.youngest == 1


def test_delete_and_move_with_a_base_spare_what_has_changed(
    svn_repo: Repository, client: SvnClient
) -> None:
    svn_repo.commit({"d/f": b"1"})
    svn_repo.commit({"d/f": b"2"})
    for path in ("d", "d/f"):
        with pytest.raises(OutOfDate):
            client.delete(f"{svn_repo.url}/{path}", "m", base_revision=1)
        with pytest.raises(OutOfDate):
            client.move(f"{svn_repo.url}/{path}", f"{svn_repo.url}/x", "m", base_revision=1)
    svn_repo.before_next_commit({"d/f": b"3"})
    with pytest.raises(OutOfDate):
        client.delete(f"{svn_repo.url}/d", "m")
    assert svn_repo.cat("d/f") == b"3"


def test_several_files_are_one_revision_each_with_its_own_base(
    svn_repo: Repository, client: SvnClient
) -> None:
    svn_repo.commit({"a": b"1", "gone": b""})
    svn_repo.commit({"b": b"1", "from": b"moved"})
    url = svn_repo.url
    revision = client.commit(
        [
            Put(f"{url}/a", b"2", 1),
            Put(f"{url}/b", b"2", 2),
            Mkdir(f"{url}/new"),
            Put(f"{url}/new/c", b"2", None),
            Mkdir(f"{url}/new/deep"),
            Move(f"{url}/from", f"{url}/new/deep/to"),
            Copy(f"{url}/a", f"{url}/a1", 1),
            Delete(f"{url}/gone", 1),
        ],
        "all at once",
    )
    assert revision == svn_repo.youngest == 3
    files = {path: svn_repo.cat(path) for path in svn_repo.paths() if path[-1] != "/"}
    assert files == {"a": b"2", "a1": b"1", "b": b"2", "new/c": b"2", "new/deep/to": b"moved"}
    assert [len(entry.paths) for entry in client.log(url, limit=1, paths=True)] == [
        9
    ]  # a move is two


def test_one_stale_file_of_several_stops_them_all(svn_repo: Repository, client: SvnClient) -> None:
    svn_repo.commit({"a": b"1", "b": b"1"})
    url = svn_repo.url
    actions: list[Action] = [Put(f"{url}/a", b"2", 1), Put(f"{url}/b", b"2", 1)]
    svn_repo.before_next_commit({"b": b"theirs"})
    with pytest.raises(OutOfDate):
        client.commit(actions, "the server sees it")
    with pytest.raises(OutOfDate):
        client.commit(actions, "we see it")
    assert (svn_repo.cat("a"), svn_repo.cat("b"), svn_repo.youngest) == (b"1", b"theirs", 2)


def test_somebody_who_commits_in_the_middle_of_the_look_wins(svn_repo: Repository) -> None:
    svn_repo.commit({"a": b"1", "b": b"1"})

    def runner(args: Sequence[str], /, **kwargs: Any) -> Completed:
        if args[1] != "info":
            return run(args, **kwargs)
        assert [target.rpartition("/")[2] for target in args[-4:]] == ["a@1", "b@1", "a@", "b@"]
        first = run(args[:-1], **kwargs)
        svn_repo.commit({"a": b"theirs"})
        second = run([*args[:-4], args[-1]], **kwargs)
        xml = first.stdout.replace(b"</info>", b"") + second.stdout.partition(b"<info>")[2]
        return second._replace(stdout=xml)

    client = SvnClient(schemes=["file"], runner=runner)
    with pytest.raises(OutOfDate):
        client.commit(
            [Put(f"{svn_repo.url}/a", b"2", 1), Put(f"{svn_repo.url}/b", b"2", 1)], "mine"
        )
    assert (svn_repo.cat("a"), svn_repo.cat("b")) == (b"theirs", b"1")


def test_a_commit_without_a_clear_meaning_is_refused(client: SvnClient) -> None:
    url = "svn://host/r"
    unclear: list[list[Action]] = [
        [],
        [Put(f"{url}/a", b"", 1), Delete(f"{url}/a")],
        [Put(f"{url}/%61", b"", 1), Put(f"{url}/a", b"", 1)],
        [Copy(f"{url}/d", f"{url}/e"), Put(f"{url}/e/f", b"", None)],
        [Put(f"{url}/d/f", b"", 1), Delete(f"{url}/d")],
        [Move(f"{url}/d", f"{url}/e"), Delete(f"{url}/d/f")],
        [Put(f"{url}/d/f", b"", None), Mkdir(f"{url}/d")],
        [Put(f"{url}/a", b"", 1), Put("svn://other/r/b", b"", 1)],
        [Put(f"{url}/a", b"", -1)],
    ]
    for actions in unclear:
        with pytest.raises(ValueError, match=r"\w"):
            client.commit(actions, "m")


def test_a_message_is_required_short_and_free_of_controls(
    svn_repo: Repository, client: SvnClient
) -> None:
    for empty in ("", " \n", "\x00\x1b"):
        with pytest.raises(ValueError, match="message"):
            client.mkdir(f"{svn_repo.url}/d", empty)
    long = "-m \x1b[31mred\r\ntab\there\ud800 " + "\N{SNOWMAN}" * 2000
    client.mkdir(f"{svn_repo.url}/d", long)

    message = next(client.log(svn_repo.url)).message
    assert message.startswith("-m [31mred\ntab\there \N{SNOWMAN}")
    assert 4090 <= len(message.encode()) <= 4096


def test_a_hook_that_refuses_is_an_error_in_its_own_words(
    svn_repo: Repository, client: SvnClient
) -> None:
    svn_repo.hook("pre-commit", "echo 'no ticket\nsvn: E160028: in the message' >&2; exit 1")
    with pytest.raises(SvnError, match=r"E165001: .*: no ticket; E160028: in the") as caught:
        client.mkdir(f"{svn_repo.url}/d", "m")
    assert type(caught.value) is SvnError and caught.value.code == "E165001"
    assert svn_repo.youngest == 0


def test_a_hook_that_fails_after_the_commit_is_a_warning(
    svn_repo: Repository, client: SvnClient, caplog: pytest.LogCaptureFixture
) -> None:
    svn_repo.hook("post-commit", "echo 'mail is down' >&2; exit 1")
    with caplog.at_level(logging.WARNING, "sepelib.vcs"):
        assert client.mkdir(f"{svn_repo.url}/d", "m") == 1
    (record,) = caplog.records
    assert "mail is down" in record.getMessage()


def test_a_file_knows_what_it_has_read(svn_repo: Repository, client: SvnClient) -> None:
    svn_repo.commit({"f": b"1"})
    mine, theirs = (SvnFile(f"{svn_repo.url}/f", client) for _ in range(2))
    assert (mine.read(), theirs.read(), mine.revision) == (b"1", b"1", 1)
    svn_repo.commit({"other": b""})
    assert not mine.changed()

    assert theirs.write(b"2", "theirs") == theirs.revision == 3
    assert mine.changed() and not theirs.changed()
    with pytest.raises(OutOfDate):
        mine.write(b"3", "mine")
    assert mine.revision == 1  # it has to be read again
    assert mine.read() == b"2"
    assert mine.write(b"3", "mine") == 4
    assert mine.write(b"4", "mine again") == 5


def test_a_file_is_read_in_the_revision_it_tells(svn_repo: Repository) -> None:
    svn_repo.commit({"f": b"1"})

    def runner(args: Sequence[str], /, **kwargs: Any) -> Completed:
        if args[1] == "cat":
            svn_repo.commit({"f": b"2"})
        return run(args, **kwargs)

    file = SvnFile(f"{svn_repo.url}/f", SvnClient(schemes=["file"], runner=runner))
    assert (file.read(), file.revision) == (b"1", 1)
    assert file.changed()
    with pytest.raises(OutOfDate):
        file.write(b"3", "m")


def test_a_file_that_is_not_there_is_created_once(svn_repo: Repository, client: SvnClient) -> None:
    first, second = (SvnFile(f"{svn_repo.url}/f", client) for _ in range(2))
    for file in (first, second):
        with pytest.raises(NotFound):
            file.read()
        assert file.revision is None and not file.changed()
    first.write(b"1", "m")
    assert second.changed()
    with pytest.raises(AlreadyExists):
        second.write(b"2", "m")
    svn_repo.commit({"f": None})
    assert first.changed()
    with pytest.raises(NotFound):
        first.read()
    assert first.revision is None
    assert first.write(b"1", "again") == 3


def test_a_lost_update_is_seen_in_a_loop_of_many_writers(
    svn_repo: Repository, client: SvnClient
) -> None:
    svn_repo.commit({"n": b"0"})
    failures: list[BaseException] = []

    def add() -> None:
        file = SvnFile(f"{svn_repo.url}/n", client)
        try:
            for _ in range(2):
                while True:
                    try:
                        file.write(b"%d" % (int(file.read()) + 1), "one more")
                        break
                    except OutOfDate:
                        pass
        except BaseException as e:
            failures.append(e)

    threads = [threading.Thread(target=add) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    assert failures == [] and svn_repo.cat("n") == b"6"
