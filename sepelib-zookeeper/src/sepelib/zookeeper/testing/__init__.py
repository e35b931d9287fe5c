"""A real ZooKeeper for tests and demos, and what goes wrong with one.

Plain classes and context managers; nothing here imports pytest (fixtures:
`sepelib.zookeeper.pytest_plugin`), kazoo or gevent. Names load at first use.

    Ensemble            several servers with a quorum, started side by side
    ServerPool          servers shared by tests, replaced when a test leaves them broken
    Zookeeper           a fresh chroot on one of these: what the fixtures give
    ZookeeperProxy      a FlakyProxy that knows the frames: loses the answer to one kind of request
    ZookeeperServer     one server: stop, kill, pause, expire a session, ask for its numbers
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._ensemble import Ensemble as Ensemble
    from ._ensemble import EnsembleProxy as EnsembleProxy
    from ._proxy import ZookeeperProxy as ZookeeperProxy
    from ._relay import LostReply as LostReply
    from ._server import Outage as Outage
    from ._server import ZookeeperServer as ZookeeperServer
    from ._zookeeper import ServerPool as ServerPool
    from ._zookeeper import Zookeeper as Zookeeper
else:
    _HOME = {
        "Ensemble": "_ensemble",
        "EnsembleProxy": "_ensemble",
        "LostReply": "_relay",
        "Outage": "_server",
        "ServerPool": "_zookeeper",
        "Zookeeper": "_zookeeper",
        "ZookeeperProxy": "_proxy",
        "ZookeeperServer": "_server",
    }

    def __getattr__(name):
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
        globals()[name] = value
        return value

    def __dir__():
        return sorted(__all__)


__all__ = [
    "Ensemble",
    "EnsembleProxy",
    "LostReply",
    "Outage",
    "ServerPool",
    "Zookeeper",
    "ZookeeperProxy",
    "ZookeeperServer",
]
