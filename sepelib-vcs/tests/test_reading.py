"""What is in a repository, read by its URL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sepelib.util.processes import run
from sepelib.vcs.svnfile import NotFound, SvnClient, SvnError
from sepelib.vcs.testing import Repository

pytest_plugins = ["sepelib.vcs.pytest_plugin"]


def test_cat_gives_the_bytes_of_the_newest_or_of_a_given_revision(
    svn_repo: Repository, client: SvnClient
) -> None:
    data = bytes(range(256))
    svn_repo.commit({"trunk/f": b"old\r\n"})
    svn_repo.commit({"trunk/f": data})

    assert client.cat(f"{svn_repo.url}/trunk/f") == data
    assert client.cat(f"{svn_repo.url}/trunk/f", 1) == b"old\r\n"
    assert client.cat(f"{svn_repo.url}//trunk/f/", "HEAD") == data


def test_a_deleted_file_is_read_at_the_revision_which_had_it(
    svn_repo: Repository, client: SvnClient
) -> None:
    svn_repo.commit({"f": b"x"})
    svn_repo.commit({"f": None})

    with pytest.raises(NotFound):
        client.cat(f"{svn_repo.url}/f", 1)
    assert client.cat(f"{svn_repo.url}/f", 1, peg=1) == b"x"


def test_a_moved_file_is_followed_to_its_former_name(
    svn_repo: Repository, client: SvnClient
) -> None:
    svn_repo.commit({"before": b"x"})
    client.move(f"{svn_repo.url}/before", f"{svn_repo.url}/after", "renamed")

    assert client.cat(f"{svn_repo.url}/after", 1) == b"x"
    with pytest.raises(NotFound):
        client.cat(f"{svn_repo.url}/after", 1, peg=1)


def test_keywords_are_not_expanded(svn_repo: Repository, client: SvnClient) -> None:
    svn_repo.commit({"f": b"$Rev$\n"})
    args = ["svnmucc", "-m", "keywords", "propset", "svn:keywords", "Rev", f"{svn_repo.url}/f"]
    assert run(args, timeout=30.0).returncode == 0

    assert client.cat(f"{svn_repo.url}/f") == b"$Rev$\n"


def test_a_missing_file_and_a_path_below_a_file_are_not_found(
    svn_repo: Repository, client: SvnClient
) -> None:
    svn_repo.commit({"f": b""})
    for path in ("nope", "f/below"):
        for method in (client.cat, client.info):
            with pytest.raises(NotFound) as caught:
                method(f"{svn_repo.url}/{path}")
            assert caught.value.code in ("E160013", "E170000", "E160016")
            assert f"/{path}" in str(caught.value)
        assert not client.exists(f"{svn_repo.url}/{path}")
    with pytest.raises(NotFound):
        list(client.list(f"{svn_repo.url}/nope"))
    with pytest.raises(NotFound):
        list(client.log(f"{svn_repo.url}/nope"))


def test_a_revision_to_come_is_an_error_and_not_a_missing_file(
    svn_repo: Repository, client: SvnClient
) -> None:
    svn_repo.commit({"f": b""})
    for call in (
        lambda: client.exists(f"{svn_repo.url}/f", 99),
        lambda: client.cat(f"{svn_repo.url}/f", peg=99),
        lambda: client.put(f"{svn_repo.url}/f", b"", "m", base_revision=99),
    ):
        with pytest.raises(SvnError, match="No such revision 99") as caught:
            call()
        assert type(caught.value) is SvnError and caught.value.code == "E160006"


def test_a_directory_has_no_content(svn_repo: Repository, client: SvnClient) -> None:
    svn_repo.commit({"d/f": b""})
    with pytest.raises(SvnError, match="refers to a directory") as caught:
        client.cat(f"{svn_repo.url}/d")
    assert caught.value.code == "E195007"


def test_info_tells_where_and_when(svn_repo: Repository, client: SvnClient) -> None:
    svn_repo.commit({"trunk/f": b"four"})
    svn_repo.commit({"trunk/g": b""})

    info = client.info(f"{svn_repo.url}/trunk/f")
    assert (info.url, info.root) == (f"{svn_repo.url}/trunk/f", svn_repo.url)
    assert (info.kind, info.size) == ("file", 4)
    assert (info.revision, info.last_changed_revision) == (2, 1)
    assert info.author and len(info.uuid) == 36
    assert info.date is not None and info.date.tzinfo == UTC
    assert abs(datetime.now(UTC) - info.date) < timedelta(hours=1)

    folder = client.info(f"{svn_repo.url}/trunk")
    assert (folder.kind, folder.size, folder.last_changed_revision) == ("dir", None, 2)
    assert client.info(f"{svn_repo.url}/trunk", 1).revision == 1


def test_an_anonymous_commit_has_no_author(svn_repo: Repository, client: SvnClient) -> None:
    with svn_repo.serve() as server:
        client.mkdir(f"{server.url}/d", "made")

        assert client.info(f"{server.url}/d").author is None
        assert next(client.log(f"{server.url}/d")).author is None


def test_the_root_of_an_empty_repository_is_there(svn_repo: Repository, client: SvnClient) -> None:
    assert client.exists(svn_repo.url)
    assert client.info(svn_repo.url).revision == 0
    assert list(client.list(svn_repo.url)) == []
    assert list(client.log(svn_repo.url)) == []


def test_list_gives_one_level_or_all(svn_repo: Repository, client: SvnClient) -> None:
    svn_repo.commit({"a/b/c": b"xyz", "a/d": b""})

    level = {entry.name: entry for entry in client.list(f"{svn_repo.url}/a")}
    assert set(level) == {"b", "d"}
    assert (level["b"].kind, level["b"].size) == ("dir", None)
    assert (level["d"].kind, level["d"].size, level["d"].last_changed_revision) == ("file", 0, 1)
    assert {e.name for e in client.list(svn_repo.url, "infinity")} == {"a", "a/b", "a/b/c", "a/d"}
    assert [entry.name for entry in client.list(f"{svn_repo.url}/a/b/c")] == ["c"]
    with pytest.raises(ValueError, match="depth"):
        client.list(svn_repo.url, "files")  # type: ignore[arg-type]


def test_log_tells_who_did_what(svn_repo: Repository, client: SvnClient) -> None:
    svn_repo.commit({"f": b"1"}, "one <&> \N{SNOWMAN}\n\nmore")
    svn_repo.commit({"f": b"2", "g": b""}, "two")
    client.copy(f"{svn_repo.url}/f", f"{svn_repo.url}/h", "three", revision=1)

    newest, two, one = client.log(svn_repo.url, paths=True)
    assert (newest.revision, two.message, one.message) == (
        *(3, "two"),
        "one <&> \N{SNOWMAN}\n\nmore",
    )
    (copied,) = newest.paths
    assert (copied.path, copied.action, copied.kind) == ("/h", "A", "file")
    assert (copied.copied_from, copied.copied_revision) == ("/f", 1)
    assert [(p.path, p.action) for p in two.paths] == [("/f", "M"), ("/g", "A")]
    assert one.author and one.date is not None and one.paths[0].copied_from is None

    assert [e.revision for e in client.log(svn_repo.url, start=1, end="HEAD")] == [1, 2, 3]
    assert [e.revision for e in client.log(svn_repo.url, limit=2)] == [3, 2]
    assert [e.paths for e in client.log(f"{svn_repo.url}/g")] == [()]
    svn_repo.commit({"g": None})
    assert [e.revision for e in client.log(f"{svn_repo.url}/g", peg=2)] == [2]
    with pytest.raises(ValueError, match="limit"):
        client.log(svn_repo.url, limit=0)


def test_diff_is_unified_and_keeps_every_byte(svn_repo: Repository, client: SvnClient) -> None:
    svn_repo.commit({"f": b"same\nold \xff\n"})
    svn_repo.commit({"f": b"same\nnew \xfe\n"})
    url = f"{svn_repo.url}/f"

    assert b"\n same\n-old \xff\n+new \xfe\n" in client.diff(url, 1, 2)
    assert client.diff(url, 2, "HEAD") == b""
    with pytest.raises(NotFound):
        client.diff(f"{svn_repo.url}/nope", 1, 2)


def test_export_writes_a_tree_or_a_file(
    svn_repo: Repository, client: SvnClient, tmp_path: Path
) -> None:
    svn_repo.commit({"t/a@1": b"a", "t/d/\N{SNOWMAN} b": b"b"})
    client.export(f"{svn_repo.url}/t", tmp_path / "-out @2")
    client.export(f"{svn_repo.url}/t/a@1", tmp_path / "one@")

    out = tmp_path / "-out @2"
    files = {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert files == {"a@1": b"a", "d/\N{SNOWMAN} b": b"b"}
    assert (tmp_path / "one@").read_bytes() == b"a"


def test_export_overwrites_nothing_and_leaves_no_half(
    svn_repo: Repository, client: SvnClient, tmp_path: Path
) -> None:
    svn_repo.commit({"f": b"new"})
    before = tmp_path / "out"
    before.mkdir()
    (before / "f").write_bytes(b"old")
    with pytest.raises(FileExistsError, match="f: exists"):
        client.export(f"{svn_repo.url}/f", before / "f")
    with pytest.raises(NotFound):
        client.export(f"{svn_repo.url}/nope", before / "nope")

    assert [(p.name, p.read_bytes()) for p in before.iterdir()] == [("f", b"old")]


def test_export_leaves_externals_out(
    svn_repo: Repository, client: SvnClient, tmp_path: Path
) -> None:
    svn_repo.commit({"t/f": b"", "elsewhere/g": b""})
    external = f"{svn_repo.url}/elsewhere taken"
    args = ["svnmucc", "-m", "x", "propset", "svn:externals", external, f"{svn_repo.url}/t"]
    assert run(args, timeout=30.0).returncode == 0

    client.export(f"{svn_repo.url}/t", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["f"]


def test_a_revision_is_a_number_or_head(svn_repo: Repository, client: SvnClient) -> None:
    for wrong in (-1, True, "1", "PREV", "{2020-01-01}", 1.0, None):
        with pytest.raises(ValueError, match="a revision is a number"):
            client.cat(svn_repo.url, wrong)  # type: ignore[arg-type]
