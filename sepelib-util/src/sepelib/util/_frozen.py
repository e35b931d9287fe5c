"""Values whose fields are set once, without the 10 ms import of `dataclasses`."""

from __future__ import annotations

__all__ = ["Frozen"]


class Frozen:
    """Fields are the `__slots__` of the subclass, given once to `_freeze()`."""

    __slots__: tuple[str, ...] = ()

    def _freeze(self, **fields: object) -> None:
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a {type(self).__name__} is frozen: make another one")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a {type(self).__name__} is frozen: make another one")

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"{type(self).__name__}({fields})"
