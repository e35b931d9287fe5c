"""A configuration as text."""

import json
import math
import re
from typing import Any

from sepelib.core.config.ambiguous import doubt_of_text

__all__ = ["to_json", "to_yaml_document"]


# Line ends to YAML, which the emitter writes as they are unless told to quote.
_LINE_ENDS = re.compile("[\x85\u2028\u2029]")


def to_json(tree: Any) -> str:
    return json.dumps(_for_json(tree), ensure_ascii=False, indent=2) + "\n"


def _for_json(value: Any) -> Any:
    """*value* in types that JSON has; dates and the rest as text."""
    if isinstance(value, dict):
        return {
            json.dumps(key) if key is None or type(key) in (bool, int) else str(key): _for_json(
                item
            )
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_for_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or type(value) in (str, bool, int, float) else str(value)


def to_yaml_document(tree: Any) -> str:
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:
            return True  # nobody wants to read &id001

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        style = '"' if _LINE_ENDS.search(value) or doubt_of_text(value) else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style)

    Dumper.add_representer(str, text)
    # An override may be anything that the program has.
    Dumper.add_multi_representer(object, lambda dumper, value: dumper.represent_str(str(value)))
    dumped: str = yaml.dump(tree, Dumper=Dumper, allow_unicode=True, sort_keys=False, width=100)
    return dumped
