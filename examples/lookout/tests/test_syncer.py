"""More targets from a real repository: changed, wrong, and not to be had."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from examples.lookout.tests.daemon import Lookout, Target, section, until
from lookout.lists import read_list
from lookout.settings import Configuration
from lookout.targets import Defaults, Program
from sepelib.core.config import ConfigError
from sepelib.mongo import MockDatabase
from sepelib.vcs.testing import Repository, SvnServer

LIST = "ops/targets.yml"


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with Repository(tmp_path / "svn") as repository:
        yield repository


@pytest.fixture
def server(repository: Repository) -> Iterator[SvnServer]:
    with repository.serve("bob", "sesame") as server:
        yield server


@pytest.fixture
def configure(
    server: SvnServer, target: Target, tmp_path: Path, mongo: MockDatabase
) -> Callable[..., Lookout]:
    """Writes a configuration with the target `own`; the lookout is to be entered once."""

    def write(more: str = "") -> Lookout:
        (tmp_path / "lookout.yml").write_text(
            "service: {state: state}\nweb: {port: 0, drain_delay: 0}\n"
            f"probes: {{interval: 50ms, timeout: 2s}}\n{more}{section(mongo)}"
            f"targets: [{{name: own, url: '{target.url}'}}]\n"
            f"svn: {{url: '{server.url}/ops', poll: 50ms, username: bob, password: sesame}}\n"
        )
        return Lookout("serve", "-c", "lookout.yml", cwd=tmp_path)

    return write


def rows(target: Target, *names: str) -> dict[str, bytes]:
    """What to commit for a list of targets of these *names*."""
    lines = [f"- name: {name}\n  url: {target.url}\n" for name in names]
    return {LIST: f"targets:\n{''.join(lines)}".encode()}


def names(lookout: Lookout) -> list[str]:
    return [target["name"] for target in lookout.status()["targets"]]


def errors(lookout: Lookout) -> list[str]:
    return [line for line in lookout.log.splitlines() if " ERROR " in line]


def test_a_list_is_watched_beside_the_configuration_and_taken_anew_when_it_changes(
    target: Target, repository: Repository, configure: Callable[..., Lookout]
) -> None:
    repository.commit(rows(target, "a", "b"))
    with configure() as lookout:
        until(lambda: names(lookout) == ["own", "a", "b"])
        until(lambda: lookout.target("b")["state"] == "up")

        repository.commit(rows(target, "c", "own", "b"))
        until(lambda: names(lookout) == ["own", "c", "b"])
        until(lambda: lookout.target("c")["state"] == "up")
        assert lookout.target("b")["probes"] >= 1  # its history has stayed
        assert lookout.status()["complaints"] == [
            "Not taken from svn, the configuration has targets of these names: own"
        ]
        assert lookout.process.stop() == 0
        assert "sesame" not in lookout.log


def test_a_wrong_list_is_one_error_with_its_place_and_the_one_of_before_stays(
    target: Target, repository: Repository, configure: Callable[..., Lookout], server: SvnServer
) -> None:
    repository.commit(rows(target, "a"))
    with configure() as lookout:
        until(lambda: names(lookout) == ["own", "a"])
        revision = repository.commit({LIST: b"targets:\n- name: a\n  url: gopher://x/\n"})
        until(lambda: lookout.status()["complaints"])

        (complaint,) = lookout.status()["complaints"]
        assert complaint.startswith(
            "The list of targets in svn was not taken, the last one stays: "
            f"{server.url}/{LIST}@{revision}:3:8: targets.0.url must be"
        )
        probes = lookout.target("a")["probes"]
        until(lambda: lookout.target("a")["probes"] >= probes + 5)  # some looks later
        assert len(errors(lookout)) == 1

        repository.commit(rows(target, "b"))
        until(lambda: names(lookout) == ["own", "b"])
        assert lookout.status()["complaints"] == []


def test_a_restart_without_the_repository_goes_on_with_the_last_list(
    target: Target, repository: Repository, server: SvnServer, configure: Callable[..., Lookout]
) -> None:
    repository.commit(rows(target, "a"))
    with configure() as lookout:
        until(lambda: names(lookout) == ["own", "a"])
        server.stop()
        until(lambda: lookout.status()["complaints"])
        probes = lookout.target("a")["probes"]
        until(lambda: lookout.target("a")["probes"] >= probes + 5)
        assert len(errors(lookout)) == 1  # of one outage
        lookout.process.kill()

    with configure() as lookout:
        assert names(lookout) == ["own", "a"]
        until(lambda: lookout.target("a")["state"] == "up")
        until(lambda: lookout.status()["complaints"])
        (complaint,) = lookout.status()["complaints"]
        assert complaint.startswith(
            "The list of targets cannot be had from svn, the last one stays"
        )

        server.start()
        repository.commit(rows(target, "b"))
        until(lambda: names(lookout) == ["own", "b"])
        until(lambda: lookout.status()["complaints"] == [])


def test_a_list_that_is_missing_is_said_and_one_that_is_deleted_stays(
    target: Target, repository: Repository, configure: Callable[..., Lookout]
) -> None:
    with configure() as lookout:
        until(lambda: lookout.status()["complaints"])
        repository.commit(rows(target, "a"))
        until(lambda: names(lookout) == ["own", "a"])
        until(lambda: lookout.status()["complaints"] == [])
        repository.commit({LIST: None})
        until(lambda: lookout.status()["complaints"])
        assert names(lookout) == ["own", "a"]


def test_a_server_that_hangs_holds_up_neither_the_watch_nor_the_end(
    target: Target, repository: Repository, server: SvnServer, configure: Callable[..., Lookout]
) -> None:
    repository.commit(rows(target, "a"))
    with configure() as lookout:
        until(lambda: names(lookout) == ["own", "a"])
        server.pause()
        probes = lookout.target("a")["probes"]
        until(lambda: lookout.target("a")["probes"] >= probes + 10)
        assert lookout.process.stop() == 0
        server.resume()


def test_a_reload_judges_the_list_by_the_new_defaults_and_may_do_without_it(
    target: Target, repository: Repository, configure: Callable[..., Lookout], tmp_path: Path
) -> None:

    repository.commit(rows(target, "a"))
    with configure() as lookout:
        until(lambda: names(lookout) == ["own", "a"])

        path = tmp_path / "lookout.yml"
        path.write_text(path.read_text().replace("interval: 50ms", "interval: 150ms"))
        lookout.signal(signal.SIGHUP)
        until(lambda: lookout.target("a")["interval"] == 0.15)

        path.write_text(path.read_text().replace("svn:", "svn: {url: ''} #"))
        lookout.signal(signal.SIGHUP)
        until(lambda: names(lookout) == ["own"])
        assert not (tmp_path / "state" / "svn-targets.yml").exists()


@pytest.mark.parametrize(
    "nasty",
    ["{{ 7 * 7 }}", "{% raw %}", "{# no #}", "{{{%", "{{'{{'}}", "{%- endraw -%}{{ env('HOME') }}"],
)
def test_a_list_is_no_template(tmp_path: Path, nasty: str) -> None:
    text = f"# {nasty}\ntargets:\n- name: a\n  exec: x\n  args:\n  - |-\n    {nasty}\n"
    defaults = Defaults(exec_dir=tmp_path)
    (target,) = read_list(text, tmp_path / "scratch", "the list", defaults)

    assert isinstance(target.how, Program)
    assert target.how.args == (nasty,)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "the list:1:1: no 'targets'; it is empty"),
        ("targets: []", "the list:1:10: targets must be watchable"),
        ("targets: [{name: a, url: 'http://x/'}]\nweb: {}", "the list: has the key 'targets' and"),
        ("- a", "the list:1"),
        ("targets: [{name: a, exec: x}]", "the list:1:27: targets.0.exec must be program_name"),
    ],
)
def test_a_list_is_checked_as_the_configuration_is(
    tmp_path: Path, text: str, sentence: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read_list(text, tmp_path / "scratch", "the list", Defaults())

    assert str(caught.value).startswith(sentence)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    ("svn", "sentence"),
    [
        ("{url: 'file:///x'}", "1:12: svn.url must be svn_url"),
        ("{url: 'svn://bob:sesame@x/'}", "without a password; there is svn.password for that"),
        ("{url: 'svn://x/', password: sesame}", "1:6: svn: a password without username="),
        ("{url: 'svn://x/', file: ../x}", "1:30: svn.file must be"),
        ("{url: 'svn://x/', poll: 0}", "1:30: svn.poll must be"),
    ],
)
def test_wrong_settings_of_svn_are_said_with_their_place(
    tmp_path: Path, svn: str, sentence: str
) -> None:
    path = tmp_path / "lookout.yml"
    path.write_text(
        f"svn: {svn}\nservice: {{state: /x}}\nmongo: {{uri: 'mongodb://h/'}}\n"
        "targets: [{name: a, url: 'http://x/'}]\n"
    )
    with pytest.raises(ConfigError) as caught:
        Configuration(path).load()

    assert sentence in str(caught.value)
    assert "sesame" not in str(caught.value)
