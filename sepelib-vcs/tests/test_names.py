"""Names and URLs: what a person may write, and what svn must not take for something else."""

from __future__ import annotations

import pytest

from sepelib.util.url import expand
from sepelib.vcs.svnfile import Copy, Delete, Move, Put, SvnClient
from sepelib.vcs.testing import Repository

pytest_plugins = ["sepelib.vcs.pytest_plugin"]

NAMES = [
    *("a@b.txt", "@", "@1", "f@HEAD", "trailing@", "two@@", "a b", " ", "-dash", "--", "-"),
    *("\N{CYRILLIC SMALL LETTER EF}", "\N{SNOWMAN}.txt", "\U0001f600", "e\u0301", "100%", "%41"),
    *(
        "a?b",
        "a#b",
        "a&b=c",
        "a+b",
        "a;b",
        "a:b",
        "'a'",
        '"a"',
        "<a>",
        "a\\b",
        "[a]",
        "{a}",
        "$HOME",
    ),
    *("*", "...", "^", "~", "|", "`id`"),
]


def test_every_name_is_written_read_listed_and_removed(
    svn_repo: Repository, client: SvnClient
) -> None:
    urls = {name: expand(svn_repo.url + "/{name}", name=name) for name in NAMES}
    client.commit([Put(url, name.encode(), None) for name, url in urls.items()], "all")

    assert svn_repo.paths() == sorted(NAMES)
    assert sorted(entry.name for entry in client.list(svn_repo.url)) == sorted(NAMES)
    for name in ("a@b.txt", "@1", "f@HEAD", "trailing@", " ", "-dash", "\U0001f600", "%41", "a?b"):
        assert client.cat(urls[name]) == name.encode()
        assert client.info(urls[name]).url.rpartition("/")[2]
    client.commit([Put(url, b"2", 1) for url in urls.values()], "all")
    client.commit([Copy(url, f"{url}@c") for url in urls.values()], "all")
    client.commit([Move(url, f"{url}@m", 2) for url in urls.values()], "all")
    assert svn_repo.paths() == sorted(name + end for name in NAMES for end in ("@c", "@m"))
    client.commit([Delete(url + "@c") for url in urls.values()], "all")
    assert len(svn_repo.paths()) == len(NAMES)


def test_names_may_be_written_as_they_are_read(svn_repo: Repository, client: SvnClient) -> None:
    for written in ("a b@1 \N{SNOWMAN}?#", "a%20b@1 %E2%98%83%3f%23", "a%20b%401%20\N{SNOWMAN}?#/"):
        assert client.exists(f"{svn_repo.url}/{written}") == (svn_repo.youngest > 0)
        if svn_repo.youngest == 0:
            client.put(f"{svn_repo.url}/{written}", b"", "m", base_revision=None)
    assert svn_repo.paths() == ["a b@1 \N{SNOWMAN}?#"]


def test_names_survive_any_locale_and_language(
    svn_repo: Repository, client: SvnClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LC_ALL", "LANG", "LC_CTYPE"):
        monkeypatch.setenv(name, "C")
    monkeypatch.setenv("LANGUAGE", "ru:de")
    url = f"{svn_repo.url}/\N{CYRILLIC SMALL LETTER EF}"
    client.put(url, b"1", "\N{CYRILLIC SMALL LETTER EF}", base_revision=None)

    assert [entry.name for entry in client.list(svn_repo.url)] == ["\N{CYRILLIC SMALL LETTER EF}"]
    assert next(client.log(url)).message == "\N{CYRILLIC SMALL LETTER EF}"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "no URL"),
        ("-rHEAD", "no URL"),
        ("--config-dir=/tmp", "no URL"),
        ("/etc/passwd", "no URL"),
        ("trunk/f", "no URL"),
        ("^/trunk", "no URL"),
        ("file:///etc", "file is not allowed"),
        ("FILE:///etc", "file is not allowed"),
        ("svn+evil://host/r", "not allowed"),
        ("svn+ssh://-oProxyCommand=id/r", "names no host"),
        ("svn+ssh://-oProxyCommand=id@host/r", "names no host"),
        ("svn+ssh://bob@-oProxyCommand=id/r", "names no host"),
        ("svn:///r", "names no host"),
        ("svn://ho st/r", "names no host"),
        ("svn://host:port/r", "names no host"),
        ("svn://host/r/../etc", "control character"),
        ("svn://host/r/%2e%2e/etc", "control character"),
        ("svn://host/r/.", "control character"),
        ("svn://host/a%2Fb", "control character"),
        ("svn://host/a%0Ab", "control character"),
        ("svn://host/a\nb", "control character"),
        ("svn://host/a\x00b", "control character"),
        ("svn://host/100%", "%25"),
        ("svn://host/%zz", "%25"),
        ("svn://host/%ff", "UTF-8"),
        ("svn://host/\ud800", "UTF-8"),
    ],
)
def test_what_is_no_url_of_a_repository_is_refused_before_svn_runs(url: str, why: str) -> None:
    client = SvnClient(svn="/no/svn", svnmucc="/no/svnmucc")
    for call in (
        lambda: client.cat(url),
        lambda: client.put(url, b"", "m", base_revision=None),
        lambda: client.copy(url, "svn://host/r", "m"),
    ):
        with pytest.raises(ValueError, match=why):
            call()


def test_a_url_with_a_password_is_refused_and_not_shown() -> None:
    client = SvnClient()
    for url in ("https://bob:hunter2@host/r", "svn://:hunter2@host/r", "svn+ssh://b:hunter2@h/r"):
        with pytest.raises(ValueError, match="give username= and password=") as caught:
            client.cat(url)
        assert "hunter2" not in str(caught.value)


def test_file_is_of_this_machine(svn_repo: Repository, client: SvnClient) -> None:
    assert client.exists(svn_repo.url.replace("file://", "file://localhost"))
    with pytest.raises(ValueError, match="of this machine"):
        client.exists(svn_repo.url.replace("file://", "file://elsewhere"))
