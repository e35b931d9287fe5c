"""A stream that nobody holds any more is ended by a collection, wherever that strikes."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from sepelib.http import InstrumentedSession
from sepelib.http.testing import HttpTestServer, Reply


class Strike:
    "Ends *pieces* at the n-th event inside of urllib3's pool, as a collection there would."

    def __init__(self, n, pieces):
        self.n, self.pieces, self.inside = n, pieces, 0

    def __call__(self, frame, event, argument):
        if frame.f_code.co_name in ("_get_conn", "_put_conn"):
            self.inside += {"call": 1, "return": -1}.get(event, 0)
        if self.inside and self.pieces is not None:
            self.n -= 1
            if self.n == 0:
                sys.setprofile(None)
                pieces, self.pieces = self.pieces, None
                pieces.close()


with HttpTestServer() as server, InstrumentedSession(max_concurrency=4) as session:
    server.route("GET", "/", lambda request: Reply(body=iter([b"x"] * 100)))
    server.route("GET", "/next", body=b"x")
    n = struck = 0
    while struck == n:
        n += 1
        pieces = session.get(server.url, stream=True).iter_content(1)
        next(pieces)
        strike = Strike(n, pieces)
        del pieces
        sys.setprofile(strike)
        assert session.get(server.url + "/next").content == b"x"
        sys.setprofile(None)
        struck += strike.pieces is None
    print("struck", struck)
"""


@pytest.mark.parametrize("world", [[], ["-m", "gevent.monkey"]])
def test_a_stream_that_ends_in_the_middle_of_anothers_connect_stops_nobody(
    world: list[str], tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)

    done = subprocess.run(
        [sys.executable, *world, str(program)], capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[1]) > 10  # else urllib3's pool has other names now
