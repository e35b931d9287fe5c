"""The commands that look at what replicas share, and change it: run as they are typed."""

import getpass
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from examples.lookout.tests.daemon import section
from examples.lookout.tests.test_service import run as in_a_process
from lookout.catalogue import read_catalogue
from lookout.cli import main
from lookout.database import Database
from lookout.silences import read_silences
from sepelib.mongo import MockDatabase


class Done(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(
    tmp_path: Path,
    database: Database,
    mongo: MockDatabase,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Run:
    """Runs a command, where a configuration with the target `own` is."""
    monkeypatch.chdir(tmp_path)
    Path("lookout.yml").write_text(
        f"service: {{state: state}}\n{section(mongo)}"
        "targets: [{name: own, url: 'http://own/', tags: [eu]}]\n"
    )

    def run(command: str, *arguments: str) -> Done:
        try:
            status = main([command, "-c", "lookout.yml", *arguments])
        except SystemExit as end:  # of argparse
            status = int(end.code or 0)
        return Done(status, *capsys.readouterr())

    return run


def a_list(*rows: str) -> str:
    Path("targets.yml").write_text("targets:\n" + "".join(f"- {row}\n" for row in rows))
    return "targets.yml"


def test_targets_are_exported_edited_and_imported(run: Run, database: Database) -> None:
    assert run("export") == Done(0, "revision: 0\ntargets: []\n", "")
    done = run("import", a_list("{name: b, url: 'http://b/'}", "{name: a, url: 'http://a/'}"))
    assert done == Done(0, "made     b a\ntargets.yml: done\n", "")

    edited = yaml.safe_load(run("export").out)
    assert [(t["name"], t["version"]) for t in edited["targets"]] == [("a", 1), ("b", 1)]
    edited["targets"][0]["interval"] = "10s"
    del edited["targets"][1]
    edited["targets"].append({"name": "c", "url": "http://c/"})
    Path("edited.yml").write_text(yaml.safe_dump(edited))

    arguments = "edited.yml", "--prune", "--by", "Ann"
    said = "made     c\nchanged  a\nremoved  b\n"
    done = run("import", "--dry-run", *arguments)
    assert done == Done(0, f"{said}edited.yml: nothing was written (--dry-run)\n", "")
    assert list(read_catalogue(database).rows) == ["a", "b"]
    assert run("import", *arguments) == Done(0, f"{said}edited.yml: done\n", "")
    stored = read_catalogue(database).rows
    assert {name: (row.version, row.by) for name, row in stored.items()} == {
        "a": (2, "Ann"),
        "c": (2, "Ann"),
    }
    assert run("import", *arguments) == Done(0, "same     a c\nedited.yml: done\n", "")


def test_an_import_that_would_undo_the_change_of_somebody_else_does_nothing(
    run: Run, database: Database
) -> None:
    run("import", a_list("{name: a, url: 'http://a/'}", "{name: b, url: 'http://b/'}"))
    old = a_list("{name: a, url: 'http://a/1', version: 1}", "{name: b, url: 'http://b/1'}")
    Path(old).rename("old.yml")
    run("import", a_list("{name: a, url: 'http://a/2', version: 1}"), "--by", "Bob B.")

    done = run("import", "old.yml")

    assert (done.status, done.out) == (1, "")
    assert done.err == (
        "lookout: old.yml: nothing imported: a has version 2 by Bob B., the file 1; "
        f"b has version 1 by {getpass.getuser()}, the file none\n"
    )
    assert read_catalogue(database).rows["b"].settings == {"url": "http://b/"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("targets: [{name: a, url: 'gopher://x/'}]", "targets.yml:1:26: targets.0.url must be"),
        ("targets: [{name: a, exec: x}]", "targets.yml:1:27: targets.0.exec must be program_name"),
        ("targets: [", "targets.yml:1"),
        ("", "targets.yml:1:1: no 'targets'"),
        ("targets: []\n\xff", "targets.yml: not utf-8"),
    ],
)
def test_a_wrong_list_is_said_with_its_place_and_nothing_is_imported(
    run: Run, database: Database, text: str, sentence: str
) -> None:
    Path("targets.yml").write_bytes(text.encode("latin-1"))

    done = run("import", "targets.yml")

    assert (done.status, done.out) == (1, "")
    assert done.err.startswith(f"lookout: {sentence}")
    assert done.err.count("\n") == 1
    assert read_catalogue(database).rows == {}


def test_a_list_that_is_not_there_is_said(run: Run) -> None:
    done = run("import", "none.yml")

    said = "lookout: none.yml: cannot be read: No such file or directory\n"
    assert done == Done(1, "", said)


def test_what_the_configuration_has_too_is_told(run: Run) -> None:
    done = run("import", a_list("{name: own, url: 'http://other/'}"))

    assert done.status == 0
    assert done.err == "lookout: own is in the configuration, too, which wins\n"


def test_a_silence_is_set_listed_and_ended(run: Run, database: Database) -> None:
    done = run("silence", "own", "--tag", "eu", "--for", "2h", "--reason", "new disks")
    assert (done.status, done.err) == (0, "")
    assert re.fullmatch(
        rf"SIL-1  own tag:eu  until \S+ \S+ \S+  by {getpass.getuser()}: new disks\n", done.out
    )
    (silence,) = read_silences(database)
    assert (silence.until - silence.created_at).total_seconds() == 7200
    assert (silence.targets, silence.tags) == ({"own"}, {"eu"})
    run("silence", "own", "--for", "1h", "--reason", "x", "--by", "Ann")

    assert [line[:5] for line in run("silences").out.splitlines()] == ["SIL-2", "SIL-1"]
    assert run("unsilence", "SIL-1") == Done(0, "SIL-1 has ended\n", "")
    said = "lookout: there is no silence SIL-1, or it has ended\n"
    assert run("unsilence", "SIL-1") == Done(1, "", said)
    assert [line[:5] for line in run("silences").out.splitlines()] == ["SIL-2"]


def test_a_silence_of_what_nobody_knows_is_set_and_told(run: Run) -> None:
    run("import", a_list("{name: shop, url: 'http://shop/', tags: [web]}"))
    done = run(
        *("silence", "own", "shop", "shpo", "--tag", "web", "--tag", "wbe"),
        *("--for", "1h", "--reason", "x"),
    )

    assert done.status == 0
    assert done.err == "lookout: no target is called shpo\nlookout: no target has the tag wbe\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["own", "--for", "8d", "--reason", "x"], "--for: must be 7 days at most"),
        (["own", "--for", "0", "--reason", "x"], "--for: must be a time such as"),
        (["own", "--for", "nan", "--reason", "x"], "--for: must be a time such as"),
        (["own", "--for", "1h", "--reason", "a\nb"], "--reason: must be one line"),
        (["own", "--for", "1h", "--reason", " "], "--reason: must be one line"),
        (["o/n", "--for", "1h", "--reason", "x"], "TARGET: must be letters"),
        (["own", "--reason", "x"], "required: --for"),
        (["own", "--for", "1h"], "required: --reason"),
    ],
)
def test_a_silence_has_an_end_a_reason_and_names(
    run: Run, arguments: list[str], sentence: str
) -> None:
    done = run("silence", *arguments)

    assert done.status == 2
    assert sentence in done.err


def test_a_silence_of_nothing_is_refused(run: Run) -> None:
    done = run("silence", "--for", "1h", "--reason", "x")

    assert done == Done(1, "", "lookout: silence: give a TARGET, or a --tag\n")


def test_a_command_without_mongo_is_one_sentence_soon_and_without_the_password(
    tmp_path: Path,
) -> None:
    (tmp_path / "lookout.yml").write_text(
        "service: {state: state}\nmongo: {uri: 'mongodb://bob:sesame@127.0.0.1:1/'}\n"
        "targets: [{name: own, url: 'http://own/'}]\n"
    )
    started = time.monotonic()

    done = in_a_process("unsilence", "-c", "lookout.yml", "SIL-1", cwd=tmp_path)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("lookout: MongoDB does not answer, and may have done it: ")
    assert "Connection refused" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "sesame" not in done.stderr
    assert time.monotonic() - started < 30
