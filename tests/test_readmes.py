"""What the READMEs show is true: it runs."""

import json
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import TCPServer
from urllib.request import urlopen

import pytest

from sepelib.util.testing import ServerProcess, free_port
from tools import dists

EVERY = dists.distributions()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


class _Users(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"name": self.path}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


def test_the_service_of_twenty_lines_answers_a_request(tmp_path: Path) -> None:
    text = (dists.ROOT / "README.md").read_text()
    (service,), (template,) = blocks(text, "python"), blocks(text, "yaml")
    assert len([line for line in service.splitlines() if line.strip()]) <= 20
    upstream = TCPServer(("127.0.0.1", 0), _Users)
    thread = threading.Thread(target=upstream.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    port = free_port()
    service = service.replace("8080", str(port)).replace("8081", str(upstream.server_address[1]))
    (tmp_path / "service.py").write_text(service)
    (tmp_path / "cfg_default.yml").write_text(template)

    def answers(_: object = None) -> bool:
        with urlopen(f"http://127.0.0.1:{port}/hello/ann", timeout=5) as answer:
            return bool(json.load(answer) == {"hello": "/users/ann"})

    try:
        with ServerProcess([sys.executable, "service.py"], ready=answers, cwd=tmp_path):
            assert answers()
            with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as metrics:
                assert b'endpoint="/users/{login}",method="GET",status="2xx"} 2' in metrics.read()
    finally:
        upstream.shutdown()
        thread.join()
        upstream.server_close()


def test_the_readme_lists_the_twelve_with_an_import_that_works() -> None:
    rows = re.findall(r"^\| \[(sepelib-\w+)\]\(\1\) \| `(.*?)` \|", _readme(), re.MULTILINE)
    assert {name for name, _ in rows} == {d.name for d in EVERY}
    for _, line in rows:
        subprocess.run([sys.executable, "-W", "error", "-c", line], check=True)


def _readme() -> str:
    return (dists.ROOT / "README.md").read_text()


@pytest.mark.parametrize("dist", EVERY, ids=lambda d: d.short)
def test_a_readme_is_one_screen_and_says_how_to_install(dist: dists.Distribution) -> None:
    text = (dist.folder / "README.md").read_text()
    needed = [*sorted(dist.siblings), dist.name]

    assert len(text.splitlines()) <= 80
    assert text.startswith(f"# {dist.name}\n")
    for name in needed:
        assert f"./{name}" in text, f"pip install does not name ./{name}"


@pytest.mark.parametrize("dist", EVERY, ids=lambda d: d.short)
def test_a_readme_says_when_there_is_nothing_yet(dist: dists.Distribution) -> None:
    modules = {p.name for p in (dist.folder / "src").rglob("*.py")}
    text = (dist.folder / "README.md").read_text()

    assert ("Nothing to use yet" in text) == (modules == {"__init__.py"})


def test_no_link_inside_the_tree_is_dead() -> None:
    pages = [*dists.ROOT.glob("*.md"), *dists.ROOT.glob("sepelib-*/*.md")]
    pages += dists.ROOT.glob("examples/*/*.md")
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
