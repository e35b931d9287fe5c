"""Read one configured value, which daemons do in hot paths; load and reload files; import."""

import atexit
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import yaml
from pydantic import BaseModel
from pydantic_settings import BaseSettings

from benchmarks.runner import Comparison, Goal, interpreter
from sepelib.core import config

TEXT = "web:\n  http:\n    port: {{ port }}\n"

# 94 lines, as a service has them: values, a condition, a loop.
_SECTION = """\
service{n}:
  host: {{{{ host|default("localhost") }}}}
  port: {{{{ base + {n} }}}}
  name: "service {n}"
  timeouts: {{connect: 1.5, read: {n}}}
  {{% if debug %}}
  level: debug
  {{% else %}}
  level: info
  {{% endif %}}
  tags: [one, two, three]
  path: /var/lib/service/{n}
"""
TEMPLATE = "".join(
    [
        "{% set base = 8000 %}\n",
        *(_SECTION.format(n=n) for n in range(7)),
        "peers:\n{% for peer in peers %}\n- name: {{ peer }}\n  weight: 1\n{% endfor %}\n",
        "password: x\nname: example\nmail: {host: localhost, port: 25}\nend: true\n",
    ]
)
CONTEXT: dict[str, Any] = {"debug": False, "peers": ["a", "b", "c", "d"]}
LEAVES = "".join(
    f"group{n}:\n" + "".join(f"  key{m}: value {m}\n" for m in range(10)) for n in range(1000)
)


class _Http(BaseModel):
    port: int


class _Web(BaseModel):
    http: _Http


class _Settings(BaseSettings):
    web: _Web


def comparisons() -> list[Comparison]:
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)  # the files are read at each call

    def file(name: str, text: str) -> Path:
        path = Path(folder.name, name)
        path.write_text(text)
        return path

    config.load(file("one.yml", TEXT), config_context={"port": 8080}, replace=True)
    settings = _Settings(web=_Web(http=_Http(port=8080)))
    literal = {"web": {"http": {"port": 8080}}}
    template, leaves = file("template.yml", TEMPLATE), file("leaves.yml", LEAVES)
    bare = _bare(template)
    loaded = config.Config().load(template, config_context=CONTEXT)
    assert loaded.get() == bare()

    def load() -> object:
        return config.Config().load(template, config_context=CONTEXT)

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
        Comparison(
            "load a template of 94 lines",
            load,
            {"jinja2 + CSafeLoader": bare},
            goals=[Goal("jinja2 + CSafeLoader", 1.5)],
        ),
        Comparison(
            "reload it unchanged",
            loaded.reload,
            {"load it": load, "jinja2 + CSafeLoader": bare},
            goals=[Goal("load it", 0.2), Goal("jinja2 + CSafeLoader", 0.2)],
        ),
        Comparison(
            "load 10,000 leaves",
            lambda: config.Config().load(leaves),
            {"CSafeLoader": lambda: _parsed(leaves.read_text())},
            goals=[Goal("CSafeLoader", 2.0)],
        ),
        Comparison(
            "import sepelib.core.config",
            interpreter("import sepelib.core.config"),
            {"import yaml": interpreter("import yaml"), "a bare interpreter": interpreter("pass")},
            goals=[Goal("import yaml", 1.0)],
        ),
    ]


def _parsed(text: str) -> object:
    return yaml.load(text, Loader=yaml.CSafeLoader)


def _bare(path: Path) -> Callable[[], object]:
    def bare() -> object:
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(path.parent),
            undefined=jinja2.StrictUndefined,
            keep_trailing_newline=True,
        )
        return _parsed(environment.get_template(path.name).render(CONTEXT))

    return bare
