import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from sepelib.util.retry import RetryPolicy
from sepelib.util.testing import Clock, FlakyProxy, ThreadedServer

pytest_plugins = ["sepelib.util.pytest_plugin"]


class Echo(ThreadedServer):
    def handle(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        while data := connection.recv(65536):
            connection.sendall(data)


def run_python(*args: str) -> str:
    done = subprocess.run(
        [sys.executable, *args], capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout + done.stderr


def run_tests(tmp_path: Path, source: str) -> str:
    """The output of a pytest of its own: a plain one, for its fixtures are what is looked at."""
    test = tmp_path / "test_inner.py"
    test.write_text(
        'pytest_plugins = ["sepelib.util.pytest_plugin"]\n' + textwrap.dedent(source),
        encoding="utf-8",
    )
    return run_python(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", str(test)
    )


def test_flaky_proxy_makes_proxies(flaky_proxy: Callable[[str, int], FlakyProxy]) -> None:
    with Echo() as one, Echo() as other:
        for server in (one, other):
            proxy = flaky_proxy(*server.address)
            with socket.create_connection(proxy.address, timeout=10) as client:
                client.sendall(b"x")
                assert client.recv(1) == b"x"
            assert server.connections.accepted == 1


def test_clock_stands_still_until_it_is_moved(clock: Clock) -> None:
    now = clock()
    clock.sleep(3600.0)
    assert clock() == now + 3600.0


def test_no_retries_makes_one_attempt_of_three(no_retries: None) -> None:
    attempts: list[int] = []

    def fail() -> None:
        attempts.append(1)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        RetryPolicy(ConnectionError, attempts=3)(fail)
    assert len(attempts) == 1


def test_proxies_are_closed_and_retries_are_back_after_the_test(tmp_path: Path) -> None:
    output = run_tests(
        tmp_path,
        """
        import socket
        import pytest
        from sepelib.util.retry import RetryPolicy

        proxies = []

        def test_that_uses_them(flaky_proxy, no_retries):
            proxies.extend(flaky_proxy("127.0.0.1", 1) for _ in range(2))
            for proxy in proxies:
                proxy.accept_and_hang()
                socket.create_connection(proxy.address, timeout=10).close()

        def test_that_comes_after():
            for proxy in proxies:
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(proxy.address, timeout=10)
            attempts = []
            with pytest.raises(OSError):
                RetryPolicy(OSError, attempts=2, sleep=lambda _: None)(failing, attempts)
            assert len(attempts) == 2

        def failing(attempts):
            attempts.append(1)
            raise OSError
        """,
    )
    assert "2 passed" in output


def test_what_a_predicate_raised_fails_the_test_and_every_proxy_is_closed(tmp_path: Path) -> None:
    output = run_tests(
        tmp_path,
        """
        import socket
        from sepelib.util.testing import ThreadedServer

        made = []

        class Silent(ThreadedServer):
            def handle(self, connection, peer):
                connection.recv(1)

        def test_with_a_broken_predicate(flaky_proxy):
            with Silent() as server:
                made.extend(flaky_proxy(*server.address) for _ in range(3))
                made[1].lose_answer(lambda data: data["no such thing"])
                with socket.create_connection(made[1].address, timeout=10) as client:
                    client.sendall(b"x")
                    assert client.recv(1) == b""

        def test_that_comes_after():
            assert [str(proxy)[-8:] for proxy in made] == ["(closed)"] * 3
        """,
    )
    assert "2 passed, 1 error" in output
    assert "byte indices must be integers" in output


def test_importing_it_loads_nothing_that_only_a_fixture_needs() -> None:
    output = run_python(
        "-c",
        "import sys, pytest; before = set(sys.modules); import sepelib.util.pytest_plugin;"
        "print(sorted(m for m in set(sys.modules) - before if 'sepelib' in m))",
    )
    assert output.strip() == "['sepelib', 'sepelib.util', 'sepelib.util.pytest_plugin']"


def test_without_pytest_it_says_what_to_install() -> None:
    output = run_python(
        "-c", "import sys; sys.modules['pytest'] = None; import sepelib.util.pytest_plugin"
    )
    assert output.strip().endswith(
        "ImportError: sepelib.util.pytest_plugin needs pytest: pip install 'sepelib-util[pytest]'"
    )
