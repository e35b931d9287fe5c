"""One of a hundred files read: what the client costs above the `svn` that it runs.

Needs Subversion (Debian: subversion). Each call is a whole process, so milliseconds are the unit.
"""

import atexit
import itertools
import subprocess
from collections.abc import Callable

from benchmarks.runner import Comparison, Goal, Variant
from sepelib.util.processes import run
from sepelib.vcs.svnfile import SvnClient
from sepelib.vcs.testing import Repository

FILES = {f"trunk/{number}.yml": b"- target\n" * 1000 for number in range(100)}


def comparisons() -> list[Comparison]:
    repository = Repository()
    atexit.register(repository.close)
    repository.commit(FILES)
    client = SvnClient(schemes=["file"])
    return [
        Comparison(
            "svn: cat of a file, file://",
            in_turns(repository, client.cat),
            {
                "svn itself": in_turns(repository, by_svn_itself),
                "svn by util's run": in_turns(repository, by_run),
            },
            goals=[Goal("svn itself", 1.25)],
        ),
    ]


def in_turns(repository: Repository, read: Callable[[str], bytes]) -> Variant:
    urls = itertools.cycle([f"{repository.url}/{path}" for path in FILES])
    return lambda: read(next(urls))


def by_svn_itself(url: str) -> bytes:
    return subprocess.run(["svn", "cat", url], check=True, capture_output=True).stdout


def by_run(url: str) -> bytes:
    return run(["svn", "cat", url], timeout=60.0).stdout
