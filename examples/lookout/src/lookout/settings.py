"""The configuration as typed values, all checked before any of them is used.

Whatever is wrong is a `ConfigError`: one line that cites the file and the line in it.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lookout.checks import (
    address,
    count,
    directory,
    level,
    mongo_database,
    mongo_uri,
    password,
    port,
    replica,
    seconds,
    svn_file,
    svn_url,
    tls,
    zookeeper_hosts,
    zookeeper_path,
)
from lookout.judge import Rules
from lookout.targets import Defaults, Target, refuse_unknown, targets_in
from sepelib.core.config import Config, ConfigError, Place
from sepelib.flask.server import Server
from sepelib.util.instrument import NULL
from sepelib.util.secrets import Secret
from sepelib.util.smtp import Mailer
from sepelib.vcs.svnfile import SvnClient

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

__all__ = [
    "SHIPPED",
    "CollectorSettings",
    "Configuration",
    "LogSettings",
    "MailSettings",
    "MongoSettings",
    "Settings",
    "SvnSettings",
    "ZookeeperSettings",
    "make_server",
]

SHIPPED = Path(__file__).with_name("lookout.yml")

# Every key there is: a misspelt one would otherwise be a default that nobody asked for. The server
# knows those of `web` itself.
KEYS: dict[str, set[str]] = {
    "service": {"name", "state", "replica"},
    "mongo": {"uri", "database"},
    "zookeeper": {"hosts", "prefix", "session_timeout", "collector"},
    "web": set(),
    "probes": {"interval", "timeout", "confirm", "recover", "quorum", "exec_dir"},
    "history": {"results", "incidents", "save_every"},
    "mail": {"enabled", "host", "port", "sender", "recipients", "tls", "user", "password"},
    "svn": {"url", "file", "poll", "username", "password"},
    "log": {"level", "file", "json"},
    "targets": set(),
}
COLLECTOR_KEYS = {"enabled", "interval", "idle"}

WEB_DEFAULTS = {"port": 8080, "access_log": False}

NO_MONGO = "no mongo.uri: incidents are kept in MongoDB; say where, as in mongodb://HOST/"

Tls = Literal["none", "starttls", "tls"]
SVN_TIMEOUT = 30.0
MAX_LIST = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class MongoSettings:
    """Where incidents, mails and all else are that replicas share."""

    uri: Secret[str]
    database: str = "lookout"


@dataclass(frozen=True, slots=True)
class MailSettings:
    """Who gets a mail, from whom, by which server; see `Mailer` for what None means."""

    sender: str
    recipients: tuple[str, ...]
    host: str = "localhost"
    port: int | None = None
    tls: Tls | None = None
    user: str | None = None
    password: Secret[str] | None = None

    def mailer(self) -> Mailer:
        """A new one, to be closed. Raises ValueError where the values contradict each other."""
        return Mailer(self.host, self.port, tls=self.tls, user=self.user, password=self.password)


@dataclass(frozen=True, slots=True)
class SvnSettings:
    """Where a list of more targets is: a file of a Subversion repository."""

    url: str  # of the file
    poll: float = 60.0
    username: str | None = None
    password: Secret[str] | None = None

    def client(self) -> SvnClient:
        """Raises ValueError where the values contradict each other."""
        return SvnClient(
            username=self.username,
            password=self.password,
            timeout=SVN_TIMEOUT,
            max_output=MAX_LIST,
        )


@dataclass(frozen=True, slots=True)
class CollectorSettings:
    """How often to look for what locks leave behind, and how long it has to be unused."""

    interval: float = 60.0
    idle: float = 600.0


@dataclass(frozen=True, slots=True)
class ZookeeperSettings:
    """Where the replicas agree on who probes what, and on who judges."""

    hosts: str
    prefix: str = "/lookout"
    session_timeout: float = 10.0
    collector: CollectorSettings | None = CollectorSettings()  # None: nobody is to collect


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What goes into the log, and where that is; *file* None: stderr."""

    level: str = "INFO"
    file: Path | None = None
    json: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """All that the daemon is told from outside."""

    name: str
    state: Path
    replica: str
    mongo: MongoSettings
    zookeeper: ZookeeperSettings | None  # None: this is the only replica
    web: Mapping[str, Any]  # as it stands there; `make_server` knows what it means
    targets: tuple[Target, ...]
    defaults: Defaults
    quorum: int  # so many replicas probe each target
    max_results: int
    max_incidents: int
    save_every: float
    log: LogSettings
    mail: MailSettings | None  # None: nobody is to be told
    svn: SvnSettings | None  # None: no other targets than these


class Configuration:
    """The file with all that is laid over it: overlays, the environment (`LOOKOUT_WEB__PORT`) and
    *overrides*. *context* fills in the templates.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        overlays: Sequence[Path] = (),
        context: Mapping[str, Any] | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> None:
        # Not the one of the process: what the parts of lookout need is handed to them, typed.
        self.config = Config()
        self._path = path
        self._overlays = overlays
        self._context = context
        self._overrides = overrides

    def load(self) -> Settings:
        """Read everything for the first time."""
        return _settings(self._loaded(self.config))

    def reload(self) -> Settings:
        """Read everything anew. When it raises, what was loaded before stays."""
        # On the side first: `config` changes only when all of the new values are known to be fine.
        settings = _settings(self._loaded(Config()))
        self.config.reload()
        return settings

    def _loaded(self, config: Config) -> Config:
        return config.load(
            self._path,
            config_context=self._context,
            overlays=self._overlays,
            env_prefix="LOOKOUT",
            overrides=self._overrides,
            ambiguous="error",
        )


def _settings(config: Config) -> Settings:
    refuse_unknown(config, (), KEYS)
    for section, names in KEYS.items():
        if names:
            refuse_unknown(config, (section,), names)
    refuse_unknown(config, ("zookeeper", "collector"), COLLECTOR_KEYS)
    defaults = _defaults(config)
    return Settings(
        name=config.get_value("service.name", "lookout", type=str),
        state=Path(config.get_value("service.state", type=str)),
        replica=_replica(config),
        mongo=_mongo(config),
        zookeeper=_zookeeper(config),
        web=_web(config),
        targets=targets_in(config, defaults),
        defaults=defaults,
        quorum=config.get_value("probes.quorum", 2, type=count),
        max_results=config.get_value("history.results", 300, type=count),
        max_incidents=config.get_value("history.incidents", 200, type=count),
        save_every=config.get_value("history.save_every", 5.0, type=seconds),
        log=_log(config),
        mail=_mail(config),
        svn=_svn(config),
    )


def make_server(config: Config, app: WSGIApplication | None = None, **options: Any) -> Server:
    """The server that `web` describes, not started; *options* win.

    Raises ConfigError, with the place of what is wrong.
    """
    section = config.get_value("web", {}, type=dict)
    options = {name: v for name, v in WEB_DEFAULTS.items() if name not in section} | options
    if not section:
        return Server(app, config=config, **options)
    return Server.from_config(config, "web", app=app, **options)


def _web(config: Config) -> Mapping[str, Any]:
    make_server(config, recorder=NULL)  # listens nowhere yet, and knows what does not fit
    section: Mapping[str, Any] = config.get_value("web", {})
    return section


def _log(config: Config) -> LogSettings:
    file = config.get_value("log.file", None)
    return LogSettings(
        config.get_value("log.level", "INFO", type=level),
        None if file is None else Path(config.get_value("log.file", type=str)),
        config.get_value("log.json", False, type=bool),
    )


def _mail(config: Config) -> MailSettings | None:
    number = len(config.get_value("mail.recipients", [], type=list))
    if not number or not config.get_value("mail.enabled", True, type=bool):
        return None

    def get(key: str, kind: Any) -> Any:
        """None where there is nothing, or a null."""
        value = config.get_value(f"mail.{key}", None)
        return None if value is None else config.get_value(f"mail.{key}", type=kind)

    mail = MailSettings(
        sender=config.get_value("mail.sender", type=address),
        recipients=tuple(
            config.get_value(f"mail.recipients.{n}", type=address) for n in range(number)
        ),
        host=config.get_value("mail.host", "localhost", type=str),
        port=get("port", port),
        tls=get("tls", tls),
        user=get("user", str),
        password=get("password", password),
    )
    try:
        mail.mailer().close()  # opens no connection, and knows what does not go together
    except ValueError as error:
        at = config.explain("mail")
        place = Place(at.file or "mail", at.line, at.column)
        raise ConfigError(f"mail: {error}", place) from None
    return mail


def _replica(config: Config) -> str:
    if config.get_value("service.replica", None) is None:
        return socket.gethostname()
    return config.get_value("service.replica", type=replica)


def _mongo(config: Config) -> MongoSettings:
    uri = config.get_value("mongo.uri", None)
    if not uri:
        raise ConfigError(NO_MONGO)
    try:
        secret = mongo_uri(uri)
    except ValueError as error:  # of a secret `get_value` would not say what it has to be
        at = config.explain("mongo.uri")
        place = Place(at.file or "mongo.uri", at.line, at.column)
        raise ConfigError(f"mongo.uri: must be {error}", place) from None
    return MongoSettings(secret, config.get_value("mongo.database", "lookout", type=mongo_database))


def _zookeeper(config: Config) -> ZookeeperSettings | None:
    if not config.get_value("zookeeper.hosts", None):
        return None
    return ZookeeperSettings(
        config.get_value("zookeeper.hosts", type=zookeeper_hosts),
        config.get_value("zookeeper.prefix", "/lookout", type=zookeeper_path),
        config.get_value("zookeeper.session_timeout", 10.0, type=seconds),
        _collector(config),
    )


def _collector(config: Config) -> CollectorSettings | None:
    if not config.get_value("zookeeper.collector.enabled", True, type=bool):
        return None
    return CollectorSettings(
        config.get_value("zookeeper.collector.interval", 60.0, type=seconds),
        config.get_value("zookeeper.collector.idle", 600.0, type=seconds),
    )


def _svn(config: Config) -> SvnSettings | None:
    if not config.get_value("svn.url", None):
        return None
    url = config.get_value("svn.url", type=svn_url).rstrip("/")
    username = config.get_value("svn.username", None)
    secret = config.get_value("svn.password", None)
    svn = SvnSettings(
        f"{url}/{config.get_value('svn.file', 'targets.yml', type=svn_file)}",
        config.get_value("svn.poll", 60.0, type=seconds),
        None if username is None else config.get_value("svn.username", type=str),
        None if secret is None else config.get_value("svn.password", type=password),
    )
    try:
        svn.client()
    except ValueError as error:
        at = config.explain("svn")
        raise ConfigError(f"svn: {error}", Place(at.file or "svn", at.line, at.column)) from None
    return svn


def _defaults(config: Config) -> Defaults:
    exec_dir = config.get_value("probes.exec_dir", None)
    return Defaults(
        config.get_value("probes.interval", 30.0, type=seconds),
        config.get_value("probes.timeout", 5.0, type=seconds),
        Rules(
            config.get_value("probes.confirm", 2, type=count),
            config.get_value("probes.recover", 2, type=count),
        ),
        None if exec_dir is None else config.get_value("probes.exec_dir", type=directory),
    )
