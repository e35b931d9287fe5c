"""What commands that need a configuration have in common on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lookout.settings import Configuration
from sepelib.core.config import ConfigError, parse_context

__all__ = ["add_configuration", "add_layers", "configuration"]


def add_configuration(parser: argparse.ArgumentParser) -> None:
    """`-c FILE` and what may lie over it."""
    parser.add_argument("-c", "--config", metavar="FILE", type=Path, required=True)
    add_layers(parser)


def add_layers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--overlay",
        dest="overlays",
        metavar="FILE",
        action="append",
        type=Path,
        default=[],
        help="what differs from the configuration; may be given more than once",
    )
    parser.add_argument(
        "-V",
        dest="values",
        metavar="NAME=VALUE",
        action="append",
        type=_pair,
        default=[],
        help="a name for the template of the configuration; the value is read as YAML",
    )
    parser.add_argument(
        "--set",
        dest="overrides",
        metavar="KEY=VALUE",
        action="append",
        type=_pair,
        default=[],
        help="another value for a key of the configuration, such as web.port=80",
    )


def configuration(options: argparse.Namespace) -> Configuration:
    """That of the options, not read yet."""
    return Configuration(
        options.config,
        overlays=options.overlays,
        context=dict(options.values),
        overrides=dict(options.overrides),
    )


def _pair(text: str) -> tuple[str, Any]:
    try:
        ((name, value),) = parse_context([text]).items()
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return name, value
