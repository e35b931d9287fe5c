"""Where Java and ZooKeeper are on this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from sepelib.util.testing import missing

__all__ = ["java_command"]

_DEBIAN = Path("/usr/share/java")
_FLAGS = (
    # A small heap, few threads, a quick start: 57 MB resident, ready in 0.2 to 0.5 s.
    "-Xmx96m",
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",
    "-XX:TieredStopAtLevel=1",
)


def java_command(properties: Mapping[str, str], config: str) -> list[str]:
    """The command of a server that reads *config*; *properties* are passed as -D.

    An Apache tarball in $ZOOKEEPER_HOME comes before Debian's jars. Raises MissingComponent.
    """
    java = shutil.which("java")
    if java is None:
        missing("Java", "default-jre-headless")
    home = os.environ.get("ZOOKEEPER_HOME")
    class_path = _tarball(Path(home)) if home else _debian(_DEBIAN)
    properties = {"org.slf4j.simpleLogger.defaultLogLevel": "info", **properties}
    return [
        java,
        *_FLAGS,
        *(f"-D{name}={value}" for name, value in properties.items()),
        "-cp",
        ":".join(map(str, class_path)),
        "org.apache.zookeeper.server.quorum.QuorumPeerMain",
        config,
    ]


def _tarball(home: Path) -> list[Path]:
    jars = [*sorted(home.glob("zookeeper*.jar")), *sorted(home.glob("lib/*.jar"))]
    if not any(jar.name.startswith("zookeeper") for jar in jars):
        missing(f"ZooKeeper (no zookeeper*.jar in {home} or its lib)", "libzookeeper-java")
    return [*jars, home / "conf"]  # its logging goes to the console, the log that is, at INFO


def _debian(folder: Path) -> list[Path]:
    jar = folder / "zookeeper.jar"  # its manifest names all that it needs
    if not jar.exists():
        missing("ZooKeeper", "libzookeeper-java")
    binding = folder / "slf4j-simple.jar"  # without a binding the server logs nothing
    return [jar, binding] if binding.exists() else [jar]
