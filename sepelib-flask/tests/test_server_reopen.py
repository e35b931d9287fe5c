"""Log files are opened anew after a rename, and no line is lost."""

import logging
import logging.handlers
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from sepelib.flask.server import reopen_logs
from sepelib.flask.testing import AppProcess, RunningServer

pytest_plugins = ["sepelib.flask.pytest_plugin"]

Servers = Callable[..., RunningServer]
LIMIT = 20.0
LINES = 10_000


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("test_server_reopen.inner")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    yield logger
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


@pytest.mark.parametrize("kind", [logging.FileHandler, logging.handlers.WatchedFileHandler,
                                  logging.handlers.RotatingFileHandler])  # fmt: skip
def test_a_handler_goes_on_in_a_new_file(
    logger: logging.Logger, tmp_path: Path, kind: type[logging.FileHandler]
) -> None:
    path, old = tmp_path / "log", tmp_path / "log.1"
    logger.addHandler(kind(path))
    logger.info("one")
    path.rename(old)

    done = reopen_logs()
    logger.info("two")

    assert str(path) in done.files and not done.failures
    assert (old.read_text(), path.read_text()) == ("one\n", "two\n")


def test_no_line_is_lost_while_writers_go_on(logger: logging.Logger, tmp_path: Path) -> None:
    path = tmp_path / "log"
    logger.addHandler(logging.FileHandler(path))
    writers = 4

    def write(number: int) -> None:
        for line in range(LINES // writers):
            logger.info("%d.%d", number, line)
            if line % 50 == 0:
                time.sleep(0)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(writers)]
    for thread in threads:
        thread.start()
    rotations = 0
    while any(thread.is_alive() for thread in threads):
        if path.exists():
            path.rename(tmp_path / f"log.{rotations}")
            rotations += 1
        reopen_logs()
        time.sleep(0.001)
    for thread in threads:
        thread.join(LIMIT)

    assert rotations > 1
    written = [line for file in tmp_path.iterdir() for line in file.read_text().splitlines()]
    wanted = {f"{n}.{line}" for n in range(writers) for line in range(LINES // writers)}
    assert len(written) == len(wanted) == LINES
    assert set(written) == wanted


def test_a_handler_inside_of_another_is_found(logger: logging.Logger, tmp_path: Path) -> None:
    path = tmp_path / "log"
    target = logging.FileHandler(path)
    logger.addHandler(logging.handlers.MemoryHandler(1000, target=target))
    path.rename(tmp_path / "log.1")

    assert reopen_logs().files.count(str(path)) == 1
    assert path.exists()
    target.close()


def test_a_handler_that_has_not_begun_is_left_alone(logger: logging.Logger, tmp_path: Path) -> None:
    logger.addHandler(logging.FileHandler(tmp_path / "log", delay=True))

    assert str(tmp_path / "log") not in reopen_logs().files
    assert not (tmp_path / "log").exists()


def test_when_the_new_file_cannot_be_opened_the_old_one_stays(
    logger: logging.Logger, tmp_path: Path
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    logger.addHandler(logging.FileHandler(folder / "log"))
    moved = tmp_path / "moved"
    folder.rename(moved)

    done = reopen_logs()
    logger.info("still here")

    assert "FileNotFoundError" in done.failures[str(folder / "log")]
    assert (moved / "log").read_text() == "still here\n"


def test_reopening_leaks_no_descriptor(logger: logging.Logger, tmp_path: Path) -> None:
    logger.addHandler(logging.FileHandler(tmp_path / "log"))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        reopen_logs()
    assert len(os.listdir("/proc/self/fd")) == before


def test_post_reopens_and_tells_what(
    server: Servers, logger: logging.Logger, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    logger.addHandler(logging.FileHandler(path))
    path.rename(tmp_path / "log.1")

    answer = requests.post(f"{server().url}/reopen_log", timeout=LIMIT)

    assert answer.status_code == 200
    assert str(path) in answer.json()["reopened"] and answer.json()["failed"] == {}
    assert path.exists()


def test_a_failure_is_a_500_that_names_the_file(
    server: Servers, logger: logging.Logger, tmp_path: Path
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    logger.addHandler(logging.FileHandler(folder / "log"))
    folder.rename(tmp_path / "moved")

    answer = requests.post(f"{server().url}/reopen_log", timeout=LIMIT)

    assert answer.status_code == 500
    assert list(answer.json()["failed"]) == [str(folder / "log")]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_get_reopens_nothing_and_hints_at_post(
    server: Servers, logger: logging.Logger, tmp_path: Path, method: str
) -> None:
    path = tmp_path / "log"
    logger.addHandler(logging.FileHandler(path))
    path.rename(tmp_path / "log.1")

    answer = requests.request(method, f"{server().url}/reopen_log", timeout=LIMIT)

    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    assert not path.exists()
    if method == "GET":
        assert "curl -X POST" in answer.json()["detail"]


def test_strangers_reopen_nothing(server: Servers) -> None:
    from sepelib.flask.server import AdminOptions

    url = server(admin=AdminOptions(networks=[])).url

    assert requests.post(f"{url}/reopen_log", timeout=LIMIT).status_code == 403


def test_sigusr1_does_the_same() -> None:
    script = """
    import logging
    logging.basicConfig(filename="log", level="INFO")
    from sepelib.flask.server import Server
    server = Server(drain_delay=0)
    """
    with AppProcess(script) as app:
        log, old = app.folder / "log", app.folder / "log.1"
        log.rename(old)
        app.signal(signal.SIGUSR1)
        until = time.monotonic() + LIMIT
        while not log.exists():
            assert time.monotonic() < until
            time.sleep(0.01)
        assert requests.get(f"{app.url}/ping", timeout=LIMIT).text == "pong"
        app.signal(signal.SIGTERM)
        assert app.wait(LIMIT) == 0
        assert "GET /ping" in log.read_text()
        assert "serving at" in old.read_text()
