"""How a value of one type is read from what JSON holds and from the text of an argument."""

from __future__ import annotations

from typing import Any

from sepelib.flask.h._problems import At, Problems

__all__ = ["Plan"]


class Plan:
    """Made once for each type. Never changes once it is complete; threads share it."""

    expected: str = ""
    """"an integer", in the words "must be an integer"."""

    kind: Any = None
    """The class of the values; None when they are of several."""

    accepts: frozenset[str] = frozenset()
    """What it takes in JSON, as `kind_of()` says it."""

    textual = False
    """Whether it can be read from the text of arguments."""

    several = False
    """Whether an argument may stand several times."""

    hidden = False
    """Whether the values are secret, so that no error shows them."""

    hashable = False
    """Whether values fit into a set."""

    def read(self, value: Any, at: At, problems: Problems) -> Any:
        """The value made of *value*, which stands *at* a place in a JSON document; or BAD."""
        raise NotImplementedError

    def parse(self, text: str, at: At, problems: Problems) -> Any:
        """The value made of *text*, of the argument *at*; or BAD."""
        raise NotImplementedError

    def parse_all(self, texts: list[str], at: At, problems: Problems) -> Any:
        """The value made of all values of the argument *at*, one or more; or BAD."""
        if len(texts) > 1:
            return problems.add(at, f"given {len(texts)} times; it has one value")
        return self.parse(texts[0], at, problems)
