"""Plain scalars that YAML 1.1 reads in another way than most people, and YAML 1.2, do."""

import re

__all__ = ["FINE", "doubt", "doubt_of_text"]

# How a value of a kind is written when nobody can take it for something else.
FINE = {
    "bool": re.compile("true|True|TRUE|false|False|FALSE").fullmatch,
    "int": re.compile("[-+]?(?:0|[1-9][0-9]*)|0x[0-9A-Fa-f]+").fullmatch,
    # A zero at the end counts in a version only, but one after the point is how floats are shown.
    "float": re.compile(
        r"[-+]?(?:(?:[0-9]+|(?=\.[0-9]))(?:\.(?:0|[0-9]*[1-9])?)?(?:[eE][-+]?[0-9]+)?"
        r"|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)"
    ).fullmatch,
}
# Numbers of YAML 1.2 that are text here.
_NUMBER = re.compile(r"0o[0-7]+|[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)[eE][-+]?[0-9]+").fullmatch


def doubt(kind: str, value: object) -> tuple[str, str]:
    """The kind of value that *text* is read as, and how to write it so that it is clear."""
    return ("bool" if kind == "bool" else "number"), str(value).lower()


def doubt_of_text(text: str) -> tuple[str, str] | None:
    """The same for what is read as text, or None when it is clear."""
    if not _NUMBER(text):
        return None
    return "text", str(int(text, 8) if text[1] == "o" else float(text))
