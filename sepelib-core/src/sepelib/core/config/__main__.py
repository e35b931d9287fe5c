"""``python -m sepelib.core.config check|show|explain FILE``: what a file means, if it does.

    check FILE          exit 0, or the error with the line it is about and exit 1
    show FILE [KEY]     the values after all layers, secrets masked
    explain FILE KEY    where a value comes from, and what it replaced, the latest first

Values for the template come with ``-V``, overlays with ``--overlay``, as they do for the service.
"""

import argparse
import logging
import sys
from collections.abc import Sequence

from sepelib.core.config import Config, ConfigError, parse_context
from sepelib.core.config.writing import to_json, to_yaml_document


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_intermixed_args(arguments)
    if options.command == "explain" and options.key is None:
        parser.error("explain what? name a KEY")
    if options.command == "check" and options.key is not None:
        parser.error("check takes no KEY")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("warning: %(message)s"))
    log = logging.getLogger("sepelib.core.config")
    log.addHandler(handler)
    try:
        config = Config().load(
            options.file,
            config_context=parse_context(options.value),
            overlays=options.overlay,
            env_prefix=options.env_prefix,
            overrides=parse_context(options.set),
            ambiguous=options.ambiguous,
        )
        print(_answer(config, options), end="")
    except ConfigError as error:
        print(error, file=sys.stderr)
        if error.snippet:
            print(f"    {error.snippet.strip()}", file=sys.stderr)
        return 1
    finally:
        log.removeHandler(handler)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sepelib.core.config",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("command", choices=("check", "show", "explain"))
    add("file", metavar="FILE")
    add("key", metavar="KEY", nargs="?")
    add(
        *("-V", "--value"),
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a name for the template; VALUE is a YAML scalar, or @FILE",
    )
    add("--overlay", metavar="FILE", action="append", default=[], help="lay this over the others")
    add("--env-prefix", metavar="APP", help="take APP_A__B as the value of a.b")
    add("--set", metavar="KEY=VALUE", action="append", default=[], help="override a value")
    add(
        "--ambiguous",
        choices=("warn", "error", "yaml11"),
        default="warn",
        help="what to do about values such as NO, 0644 or 1.10",
    )
    add("--format", choices=("yaml", "json"), default="yaml", help="of what show prints")
    return parser


def _answer(config: Config, options: argparse.Namespace) -> str:
    if options.command == "check":
        return f"{options.file}: ok\n"
    json = options.command == "show" and options.format == "json"
    write = to_json if json else to_yaml_document
    if options.key is None:
        return write(config.to_dict())
    origin = config.explain(options.key)
    tree = {options.key: config._values.shown(options.key)}
    if options.command == "show":
        return write(tree)
    lines = [f"  {each.layer:<8}  {each}\n" for each in (origin, *origin.replaced)]
    return write(tree) + "".join(lines)


if __name__ == "__main__":
    sys.exit(main())
