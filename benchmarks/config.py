"""Read one configured value, which daemons do in hot paths."""

import tempfile
from pathlib import Path

from pydantic import BaseModel
from pydantic_settings import BaseSettings

from benchmarks.runner import Comparison, Goal
from sepelib.core import config

TEXT = "web:\n  http:\n    port: {{ port }}\n"


class _Http(BaseModel):
    port: int


class _Web(BaseModel):
    http: _Http


class _Settings(BaseSettings):
    web: _Web


def comparisons() -> list[Comparison]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "cfg_default.yml")
        path.write_text(TEXT)
        config.load(path, config_context={"port": 8080}, replace=True)
    settings = _Settings(web=_Web(http=_Http(port=8080)))
    literal = {"web": {"http": {"port": 8080}}}
    return [
        Comparison(
            "get_value('web.http.port')",
            lambda: config.get_value("web.http.port"),
            {
                "pydantic-settings": lambda: settings.web.http.port,
                "a dict of dicts": lambda: literal["web"]["http"]["port"],
            },
            goals=[Goal("pydantic-settings", 1.5)],
        ),
    ]
