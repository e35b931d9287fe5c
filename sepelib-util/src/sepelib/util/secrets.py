"""A value that must not be seen: in logs, reprs, tracebacks, dumps.

    password = Secret("hunter2")
    print(f"{password} {password!r}")       # *** ***
    login(user, password.reveal())          # the one way to the value, easy to search for

Guards against showing it by mistake. It does not hide it from code that looks for it, from a
debugger or from a core dump.
"""

from __future__ import annotations

from typing import AnyStr, Generic, NoReturn

__all__ = ["MASK", "Secret"]

MASK = "***"


class Secret(Generic[AnyStr]):
    """A str or bytes that shows as `***` however it is printed; `reveal()` gives the value.

    repr, str, f-strings with any format, %-formatting and logging give `***`, so does the repr of
    a container or of a traceback's locals. It is no str on purpose: code that wants one gets a
    TypeError, not a wrong password. Hence `json.dumps(x)` refuses it, by type and without the
    value; `json.dumps(x, default=str)` writes "***".

    Equal to a Secret of the same value, compared in constant time for values of one length, and
    to nothing else: write `Secret(given) == expected`. Hashable; false when empty. Copies are the
    object itself. Not pickled, since a pickle is the value in clear: pickle `reveal()` if it must
    be. `Secret(secret)` wraps once. Never changes, so threads and greenlets may share it.
    """

    __slots__ = ("_value",)

    _value: AnyStr

    def __init__(self, value: AnyStr | Secret[AnyStr]) -> None:
        if isinstance(value, Secret):
            value = value.reveal()
        if not isinstance(value, str | bytes):
            raise TypeError(f"a Secret is made of str or bytes, not {type(value).__name__}")
        self._value = value

    def reveal(self) -> AnyStr:
        """The value itself."""
        return self._value

    def __repr__(self) -> str:
        return MASK

    def __format__(self, format_spec: str) -> str:
        return MASK

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        if type(self._value) is not type(other._value):
            return False
        # Costs milliseconds to import (OpenSSL), and few who keep secrets compare them.
        from hmac import compare_digest

        return compare_digest(_encoded(self._value), _encoded(other._value))

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __copy__(self) -> Secret[AnyStr]:
        return self

    def __deepcopy__(self, memo: object) -> Secret[AnyStr]:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Secret is not pickled, it would be in clear; pickle reveal() if it must be"
        )


def _encoded(value: str | bytes) -> bytes:
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
